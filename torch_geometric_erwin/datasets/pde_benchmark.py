import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from torch_geometric_erwin.datasets.array_files import is_count
from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.meshes import (
    QUAD,
    edges_of_cells,
    grid_quads,
    split_quads,
)
from torch_geometric_erwin.datasets.pde_files import (
    BENCHMARKS,
    open_benchmark,
)


class PDEBenchmark(Dataset):
    r"""Four benchmarks of structural and fluid mechanics from the `"Fourier
    Neural Operator with Learned Deformations for PDEs on General Geometries"
    <https://arxiv.org/abs/2207.05209>`_ paper, with the cuts and splits of
    the `"Transolver: A Fast Transformer Solver for PDEs on General
    Geometries" <https://arxiv.org/abs/2402.02366>`_ paper and of Erwin's
    authors: one :class:`~torch_geometric.data.Data` per solution.

    The files have to be downloaded from the page that `their authors' code
    <https://github.com/neuraloperator/Geo-FNO>`_ names. Below :obj:`root`,

    - :obj:`"airfoil"`: transonic flow around an airfoil, on a C-grid of
      221 × 51 points, 11,271 in all; :obj:`y` is the Mach number.
      :obj:`airfoil/naca/NACA_Cylinder_{X,Y,Q}.npy`, of :math:`(n, 221, 51)`
      and :math:`(n, C, 221, 51)`, whose channel 4 is read. The grid meets
      itself behind the airfoil, where points coincide; they are not joined.
    - :obj:`"elasticity"`: a unit cell with a hole, under tension, 972 points
      without a mesh; :obj:`y` is the stress.
      :obj:`elasticity/Meshes/Random_UnitCell_{XY,sigma}_10.npy`, of
      :math:`(972, 2, n)` and :math:`(972, n)`.
    - :obj:`"pipe"`: flow through a pipe, the first 128 × 128 of 129 × 129
      points; :obj:`y` is the velocity along the x axis.
      :obj:`pipe/Pipe_{X,Y,Q}.npy`, of :math:`(n, 129, 129)` and
      :math:`(n, C, 129, 129)`, whose channel 0 is read.
    - :obj:`"plasticity"`: a block that a die is pressed upon, 101 × 31
      points, at each of 20 times; :obj:`y` are four fields.
      :obj:`plasticity/plas_N987_T20.mat`: :obj:`input` :math:`(n, 101)` and
      :obj:`output` :math:`(n, 101, 31, 20, 4)`. Requires SciPy, which holds
      the file in memory, or h5py, where its version is 7.3.

    All quantities keep the units of the files, which do not name them. A
    solution has

    - :obj:`pos` :math:`(N, 2)`, in order of the rows of the grid; for
      plasticity, the same in all of them: the indices in a row and of the
      row, each scaled to :math:`[0, 1]`.
    - :obj:`y` :math:`(N, 1)`, or :math:`(N, 4)` for plasticity.
    - :obj:`x` :math:`(N, 1)` for plasticity: the shape of the die, one number
      a row, and :obj:`time` :math:`(1)`, the index of the time, from 0 to 19.
      Times of a die follow each other.
    - :obj:`face` :math:`(3, F)`, the cells of the grid, each split in two
      triangles, and :obj:`edge_index` :math:`(2, E)`, their sides in both
      directions, where there is a grid.

    The training set are the first 1,000 samples (900 dies), the test set the
    next 200 of airfoils and pipes, and the last 200 cells and 80 dies. Only
    samples that are asked for are read, but for plasticity of old versions.

    Args:
        root (str): The folder that holds the benchmarks.
        name (str, optional): :obj:`"airfoil"`, :obj:`"elasticity"`,
            :obj:`"pipe"` or :obj:`"plasticity"`. (default:
            :obj:`"airfoil"`)
        split (str, optional): :obj:`"train"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        num_train (int, optional): Number of samples (dies) to train with.
            (default: that of the benchmark)
        num_test (int, optional): Number of samples (dies) to test with.
            (default: that of the benchmark)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If a file does not exist.
        ImportError: If the package that reads a file is not installed.
        ValueError: If there is no such benchmark or split, files hold fewer
            samples than both splits, or are broken, of other shapes, or hold
            pickled objects, which are never run.
    """
    def __init__(
        self,
        root: str,
        name: str = 'airfoil',
        split: str = 'train',
        num_train: int | None = None,
        num_test: int | None = None,
        transform: Callable | None = None,
    ) -> None:
        expect(name in BENCHMARKS, 'name', f'one of {list(BENCHMARKS)}', name)
        expect(split in ('train', 'test'), 'split', "'train' or 'test'",
               split)
        super().__init__(os.fspath(root), transform)
        self.benchmark = name
        self.split = split
        self.num_steps = BENCHMARKS[name].num_steps
        self.files = open_benchmark(self.root, name)
        self.samples = self.find_samples(num_train, num_test)
        self.mesh = self.make_mesh()

    @staticmethod
    def normalization(name: str) -> dict[str, tuple[Tensor, Tensor]]:
        r"""Returns the means and the standard deviations by which the
        authors normalize each attribute of a benchmark.
        """
        expect(name in BENCHMARKS, 'name', f'one of {list(BENCHMARKS)}', name)
        return {key: (torch.tensor(mean), torch.tensor(std))
                for key, (mean, std) in BENCHMARKS[name].stats.items()}

    def find_samples(self, num_train: int | None,
                     num_test: int | None) -> range:
        r"""Returns the indices of the samples of the split."""
        fixed, total = BENCHMARKS[self.benchmark], self.files.num_samples
        num_train = fixed.num_train if num_train is None else num_train
        num_test = fixed.num_test if num_test is None else num_test
        for key, value in (('num_train', num_train), ('num_test', num_test)):
            expect(is_count(value) and value > 0, key, 'at least 1', value)
        if num_train + num_test > total:
            raise ValueError(
                f"Expected the files of {self.benchmark!r} in {self.root!r} "
                f"to hold at least {num_train} samples for training and "
                f"{num_test} others for test (got {total})")
        if self.split == 'train':
            return range(num_train)
        start = total - num_test if fixed.test_is_last else num_train
        return range(start, start + num_test)

    def make_mesh(self) -> dict[str, Tensor]:
        grid = BENCHMARKS[self.benchmark].grid
        if grid is None:
            return {}
        quads = grid_quads(*grid)
        return dict(face=split_quads(quads), edge_index=edges_of_cells(
            quads, QUAD, grid[0] * grid[1])[0])

    def len(self) -> int:
        return len(self.samples) * self.num_steps

    def get(self, idx: int) -> Data:
        sample, step = divmod(idx, self.num_steps)
        mesh = {key: value.clone() for key, value in self.mesh.items()}
        return Data(**self.files.read(self.samples[sample], step), **mesh)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'name={self.benchmark!r}, split={self.split!r})')
