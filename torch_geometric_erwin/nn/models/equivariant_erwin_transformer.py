from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Linear
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import check_positive
from torch_geometric_erwin.nn.conv import EquivariantErwinConv
from torch_geometric_erwin.nn.models.equivariant_erwin_embedding import (
    EquivariantErwinEmbedding,
)
from torch_geometric_erwin.nn.models.erwin_base import ErwinBase
from torch_geometric_erwin.nn.pool import (
    EquivariantBallPooling,
    EquivariantBallUnpooling,
)
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.tree import BallTree


class EquivariantErwinTransformer(ErwinBase):
    r"""The model of the `"Erwin: A Tree-based Hierarchical Transformer for
    Large-scale Physical Systems" <https://arxiv.org/abs/2502.17019>`_ paper
    on scalars and vectors: when positions, their tree and the input's vectors
    are turned or mirrored, the output's scalars stay the same, and its
    vectors turn along. In any dimension, without spherical harmonics.

    It is made as :class:`~torch_geometric_erwin.nn.ErwinTransformer` is: an
    embedding by message passing among neighbors
    (:class:`~torch_geometric_erwin.nn.EquivariantMPNNConv`), blocks
    (:class:`~torch_geometric_erwin.nn.EquivariantErwinConv`), pooling along
    the ball tree and back, with skip connections; without :obj:`strides`
    blocks only.

    Args:
        in_channels (int): Size of each input sample's scalars, or :obj:`-1`
            to derive it from the first input.
        hidden_channels (int or list[int]): Size of each hidden sample, of
            scalars and of vectors, at all levels or one for each.
        out_channels (int, optional): Size of each output sample's scalars.
            (default: :obj:`None`, features as they come out of the blocks)
        in_vectors (int, optional): Number of each input sample's vectors.
            (default: :obj:`0`)
        out_vectors (int, optional): Number of each output sample's vectors.
            (default: :obj:`0`, only scalars are returned)
        depths (int or list[int]): Number of blocks at all levels or at each.
        heads (int or list[int]): Number of attention heads, likewise.
        ball_sizes (int or list[int]): Number of slots of a ball, likewise,
            powers of two.
        strides (list[int], optional): How many slots make a point of the next
            level, powers of two; one fewer than levels.
            (default: :obj:`()`)
        decoder_depths (int or list[int], optional): Number of blocks on the
            way back, for all strides or for each, finest level first.
            (default: those on the way there)
        decoder_heads (int or list[int], optional): Number of attention heads
            on the way back, likewise. (default: those on the way there)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of their input. (default: :obj:`4`)
        mp_steps (int, optional): Number of steps of message passing in the
            embedding. (default: :obj:`3`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        decode (bool, optional): If set to :obj:`False`, the model ends at
            the coarsest level. (default: :obj:`True`)
        rotations (list[float], optional): The orientations of the tree, in
            degrees, that blocks take in turn; see
            :meth:`torch_geometric_erwin.BallTree.build`. Trees are built
            along principal axes.
            (default: :obj:`(0., 45.)`)
        completion (str, optional): How the model builds trees; see
            :meth:`torch_geometric_erwin.BallTree.build`.
            (default: :obj:`"balanced"`)
        periodic (bool, optional): Whether all trees have to be periodic
            (:obj:`True`) or none may be (:obj:`False`): outputs depend on
            it. (default: :obj:`None`, either)
        k (int, optional): Number of nearest neighbors in the embedding where
            no edges are given. (default: :obj:`16`)
        basis (str, optional): What messages are told of distances; see
            :class:`~torch_geometric_erwin.nn.EquivariantMPNNConv`.
            (default: :obj:`"distance"`)
        num_basis (int, optional): Number of Bessel functions.
            (default: :obj:`8`)
        cutoff (float, optional): Where these vanish.
            (default: :obj:`None`)
        bias (str, optional): How distances enter; see
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`"distance"`)
        signed (bool, optional): See
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`False`)
        dropout (float, optional): Dropout probability in the blocks.
            (default: :obj:`0.`)
        norm (str or Callable, optional): The normalization function of
            scalars in pooling and unpooling. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)
        ckpt_grad (bool, optional): If set to :obj:`True`, keeps only what
            goes into each block and each step of message passing in
            training, and computes them again for gradients: less memory,
            more time. (default: :obj:`False`)

    Shapes:
        - **input:**
          scalars :math:`(N, F_{in})`, vectors :math:`(N, D,
          \textrm{in\_vectors})`, a tree of :math:`N` points or positions
          :math:`(N, D)`, edge indices :math:`(2, E)` *(optional)*
        - **output:** scalars :math:`(N, F_{out})` *(with* :obj:`out_vectors`
          *also vectors* :math:`(N, D, \textrm{out\_vectors})` *)*; with
          :obj:`decode=False` those of the :math:`M` points of the coarsest
          level, and last its tree
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        out_channels: int | None = None,
        *,
        in_vectors: int = 0,
        out_vectors: int = 0,
        depths: int | Sequence[int],
        heads: int | Sequence[int],
        ball_sizes: int | Sequence[int],
        strides: Sequence[int] = (),
        decoder_depths: int | Sequence[int] = (),
        decoder_heads: int | Sequence[int] = (),
        mlp_ratio: int = 4,
        mp_steps: int = 3,
        dim: int = 3,
        decode: bool = True,
        rotations: Sequence[Any] = (0., 45.),
        completion: str = 'balanced',
        periodic: bool | None = None,
        k: int = 16,
        basis: str = 'distance',
        num_basis: int = 8,
        cutoff: float | None = None,
        bias: str | None = 'distance',
        signed: bool = False,
        dropout: float = 0.,
        norm: Any = 'batch_norm',
        norm_kwargs: dict[str, Any] | None = None,
        ckpt_grad: bool = False,
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels,
                         ball_sizes=ball_sizes, strides=strides, dim=dim,
                         decode=decode, rotations=rotations,
                         completion=completion, axes='principal',
                         periodic=periodic)
        check_positive('mp_steps', mp_steps, 0)
        check_positive('k', k)
        check_positive('in_vectors', in_vectors, 0)
        check_positive('out_vectors', out_vectors, 0)
        self.in_vectors = in_vectors
        self.out_vectors = out_vectors

        def blocks(channels: int, heads: int,
                   depth: int) -> EquivariantErwinConv:
            return EquivariantErwinConv(
                channels, channels, heads, dim=dim, depth=depth,
                mlp_ratio=mlp_ratio, bias=bias, signed=signed,
                dropout=dropout, ckpt_grad=ckpt_grad)

        kwargs = {'dim': dim, 'norm': norm, 'norm_kwargs': norm_kwargs}
        hidden = self.hidden_channels
        self.embedding = EquivariantErwinEmbedding(
            in_channels, hidden[0], mp_steps, in_vectors=in_vectors, dim=dim,
            k=k, basis=basis, num_basis=num_basis, cutoff=cutoff,
            ckpt_grad=ckpt_grad)
        self._make_stages(depths, heads, decoder_depths, decoder_heads,
                          blocks, partial(EquivariantBallPooling, **kwargs),
                          partial(EquivariantBallUnpooling, **kwargs))
        last = hidden[0 if decode else -1]
        self.lin: Linear | None = None
        self.lin_vec: Linear | None = None
        if out_channels is not None:
            self.lin = Linear(last, out_channels)
        if out_vectors > 0:
            self.lin_vec = Linear(last, out_vectors, bias=False)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        for lin in (self.lin, self.lin_vec):
            if lin is not None:
                lin.reset_parameters()

    def build_tree(
        self,
        pos: Tensor,
        batch: OptTensor = None,
        *,
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
        ptr: OptTensor = None,
    ) -> BallTree:
        r"""Builds the tree that the model works on, with its levels and
        orientations, along principal axes; see
        :meth:`torch_geometric_erwin.BallTree.build`.
        """
        return super().build_tree(pos, batch, box=box, pbc=pbc, ptr=ptr)

    def forward(
        self,
        x: Tensor,
        vec: OptTensor = None,
        tree: BallTree | None = None,
        edge_index: OptTensor = None,
        *,
        pos: OptTensor = None,
        batch: OptTensor = None,
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
        edge_shift: OptTensor = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors.
                (default: :obj:`None`, zeros)
            tree (BallTree, optional): Their ball tree, with the levels of
                :meth:`build_tree`. (default: :obj:`None`, built from
                :obj:`pos`, :obj:`batch` and :obj:`box`)
            edge_index (torch.Tensor, optional): The graph for the embedding.
                (default: :obj:`None`, the nearest neighbors)
            pos (torch.Tensor, optional): The positions.
                (default: :obj:`None`)
            batch (torch.Tensor, optional): The cloud of each point.
                (default: :obj:`None`)
            box (torch.Tensor or float, optional): The periodic cell; see
                :meth:`torch_geometric_erwin.BallTree.build`.
                (default: :obj:`None`)
            pbc (torch.Tensor or list[bool], optional): Which directions are
                periodic. (default: :obj:`None`, all)
            edge_shift (torch.Tensor, optional): Of given edges in a periodic
                cell, how many of its vectors lead from sources to their
                images, shape :math:`(E, D)`.
                (default: :obj:`None`, the nearest images)

        Raises:
            ValueError: If features and tree do not fit each other or the
                model.
        """
        tree = self._find_tree(tree, pos, batch, box, pbc)
        self._check_input(x, tree, edge_index, edge_shift)
        vec = check_vectors(vec, x, self.dim, self.in_vectors)
        x, vec = self.embedding(x, vec, tree, edge_index, edge_shift)
        (x, vec), tree = self._through_levels((x, vec), tree)
        results: list[Any] = [x if self.lin is None else self.lin(x)]
        if self.lin_vec is not None:
            results.append(self.lin_vec(vec))
        if not self.decode:
            results.append(tree)
        return results[0] if len(results) == 1 else tuple(results)
