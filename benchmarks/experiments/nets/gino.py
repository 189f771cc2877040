import neuralop.models
import torch
from neuralop.layers.gno_block import GNOBlock
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

from benchmarks.experiments.nets.fno import (
    SinglePrecisionConv,
    check_modes,
    drop_metadata,
)
from benchmarks.experiments.nets.grid_net import GridNet
from benchmarks.experiments.nets.levels import Level
from benchmarks.experiments.nets.raster import flatten, place


class GINO(GridNet):
    r"""The network of the `"Geometry-Informed Neural Operator for Large-Scale
    3D PDEs" <https://arxiv.org/abs/2309.00583>`_ paper, with the modules of
    the package :obj:`neuraloperator`: a kernel integral from points to the
    nodes of a grid, a Fourier neural operator there, and a kernel integral
    from nodes to points.

    Neighbors and sums over them are ours, which know batches, periodic boxes
    and double precision; without `open3d` and `torch-scatter`, the package
    measures all distances and adds up in a loop over nodes.

    Kernels see where points and nodes are by waves that close around the
    grid. Distances of nodes are among the features of points.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_modes (int, optional): Number of waves along each axis of the
            Fourier neural operator, of both signs. (default: :obj:`8`)
        num_layers (int, optional): Number of its layers.
            (default: :obj:`4`)
        radius (float, optional): How far kernels reach, in cells of the
            grid. (default: :obj:`1.5`)
        num_waves (int, optional): Number of waves that tell kernels where
            along an axis they are. (default: :obj:`4`)
        resolution (int, optional): Number of nodes along each axis.
            (default: :obj:`16`)
        margin (int, optional): Number of empty cells around clouds that are
            in no periodic box. (default: :obj:`2`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)

    Raises:
        ValueError: If the grid has an odd number of nodes, or fewer than
            waves, or kernels do not reach from all points to nodes.
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_modes: int = 8,
        num_layers: int = 4,
        radius: float = 1.5,
        num_waves: int = 4,
        resolution: int = 16,
        margin: int = 2,
        dim: int = 3,
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels,
                         resolution, dim, margin)
        check_modes(num_modes, resolution)
        if radius < dim**0.5 / 2:
            raise ValueError(f"Expected 'radius' to be at least half the "
                             f"diagonal of a cell, {dim**0.5 / 2:.3f} (got "
                             f"{radius})")
        channels = hidden_channels
        self.lin = Linear(in_channels + dim, channels)
        # A grid is two units long, and so is the longest of these waves.
        self.unit = 2 / resolution
        self.gino = neuralop.models.GINO(
            in_channels=channels, out_channels=channels, gno_coord_dim=dim,
            in_gno_radius=radius * self.unit,
            out_gno_radius=radius * self.unit,
            in_gno_pos_embed_type='nerf', out_gno_pos_embed_type='nerf',
            gno_embed_channels=num_waves,
            in_gno_channel_mlp_hidden_layers=[channels] * 2,
            out_gno_channel_mlp_hidden_layers=[channels] * 2,
            gno_use_open3d=False, gno_use_torch_scatter=False,
            fno_in_channels=channels, fno_n_modes=(num_modes, ) * dim,
            fno_hidden_channels=channels, fno_n_layers=num_layers,
            fno_conv_module=SinglePrecisionConv)
        self.register_state_dict_post_hook(drop_metadata)

    def forward(self, data: Batch) -> Tensor:
        pos, cell = place(data, self.resolution, self.margin)
        box = torch.full_like(cell, 2.) if 'box' in data else None
        points = Level(pos * self.unit, data.batch, data.num_graphs, box)
        x = self.lin(torch.cat([data.x, cell[data.batch]], dim=1))
        x = self.operate(x, points)
        return self.head(torch.cat([x, data.x], dim=1))

    def operate(self, x: Tensor, points: Level) -> Tensor:
        r"""The operator from functions on points to functions on points,
        shape :math:`(N, C_{\textrm{hidden}})`, which lie in the cube of two
        units of length.
        """
        nodes = self.nodes(points)
        x = integrate(self.gino.gno_in, x, points, nodes)
        shape = [self.resolution] * points.pos.size(1)
        grid = x.view(points.num_clouds, *shape, -1)
        x = flatten(self.gino.latent_embedding(grid))
        x = integrate(self.gino.gno_out, x, nodes, points)
        return self.gino.projection(x.t().unsqueeze(0)).squeeze(0).t()

    def nodes(self, points: Level) -> Level:
        r"""The nodes of all clouds' grids."""
        axis = self.unit * torch.arange(self.resolution).to(points.pos)
        axes = [axis] * points.pos.size(1)
        pos = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)
        pos = pos.flatten(0, -2)
        batch = torch.arange(points.num_clouds, device=pos.device)
        return Level(pos.repeat(points.num_clouds, 1),
                     batch.repeat_interleave(len(pos)), points.num_clouds,
                     points.box)


def integrate(block: GNOBlock, x: Tensor, source: Level,
              target: Level) -> Tensor:
    r"""Returns :math:`\int \kappa(\mathbf{p}, \mathbf{q}) \odot
    \mathbf{x}(\mathbf{q}) \, \textrm{d} \mathbf{q}` at the points
    :math:`\mathbf{p}` of a level, over those :math:`\mathbf{q}` of the other
    in reach, shape :math:`(M, C)`.
    """
    start, end = source.within(target, block.radius)
    transform = block.integral_transform
    kernel = transform.channel_mlp(
        torch.cat([block.pos_embedding(source.pos)[start],
                   block.pos_embedding(target.pos)[end]], dim=1))
    return scatter(kernel * x[start], end, dim_size=len(target.pos),
                   reduce=transform.reduction)
