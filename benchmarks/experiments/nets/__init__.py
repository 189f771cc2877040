r"""Networks to compare, all called with a batch of clouds."""

from benchmarks.experiments.nets.dil_resnet import DilResNet
from benchmarks.experiments.nets.equivariant_hybrid import EquivariantHybrid
from benchmarks.experiments.nets.erwin import Erwin
from benchmarks.experiments.nets.flare import FLARE
from benchmarks.experiments.nets.gat import GAT
from benchmarks.experiments.nets.gps import GPS
from benchmarks.experiments.nets.graphvit import GraphViT
from benchmarks.experiments.nets.hybrid import Hybrid
from benchmarks.experiments.nets.meshgraphnet import MeshGraphNet
from benchmarks.experiments.nets.mpnn import MPNN
from benchmarks.experiments.nets.mspt import MSPT
from benchmarks.experiments.nets.point_transformer import PointTransformer
from benchmarks.experiments.nets.point_transformer_v3 import PointTransformerV3
from benchmarks.experiments.nets.pointnet2 import PointNet2
from benchmarks.experiments.nets.transolver import Transolver
from benchmarks.experiments.nets.unet import UNet
from benchmarks.experiments.nets.upt import UPT
from benchmarks.experiments.nets.visnet import ViSNet

__all__ = ['FLARE', 'GAT', 'GPS', 'MPNN', 'MSPT', 'UPT', 'DilResNet',
           'EquivariantHybrid', 'Erwin', 'GraphViT', 'Hybrid', 'MeshGraphNet',
           'PointNet2', 'PointTransformer', 'PointTransformerV3', 'Transolver',
           'UNet', 'ViSNet']
