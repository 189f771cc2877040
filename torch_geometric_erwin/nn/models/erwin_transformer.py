from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear

from torch_geometric_erwin.nn.checks import check_positive
from torch_geometric_erwin.nn.conv import ErwinConv
from torch_geometric_erwin.nn.models.erwin_base import ErwinBase
from torch_geometric_erwin.nn.models.erwin_embedding import ErwinEmbedding
from torch_geometric_erwin.nn.models.official import from_official
from torch_geometric_erwin.nn.models.official_tree import order_pairs
from torch_geometric_erwin.nn.pool import BallPooling, BallUnpooling
from torch_geometric_erwin.tree import BallTree


class ErwinTransformer(ErwinBase):
    r"""The model of the `"Erwin: A Tree-based Hierarchical Transformer for
    Large-scale Physical Systems" <https://arxiv.org/abs/2502.17019>`_ paper.

    Points are embedded by message passing among neighbors, go through
    :class:`~torch_geometric_erwin.nn.ErwinConv` blocks, are pooled along
    their ball tree, level by level, and brought back, with skip connections.
    Without :obj:`strides` there is one level, and the model is the paper's
    residual form. Clouds may have any size.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            it from the first input.
        hidden_channels (int or list[int]): Size of each hidden sample, at
            all levels or one for each.
        out_channels (int, optional): Size of each output sample.
            (default: :obj:`None`, features as they come out of the blocks)
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
            degrees or as matrices, that blocks take in turn; see
            :meth:`torch_geometric_erwin.BallTree.build`.
            (default: :obj:`(0., 45.)`)
        completion (str, optional): How the model builds trees; see
            :meth:`torch_geometric_erwin.BallTree.build`.
            (default: :obj:`"balanced"`)
        axes (str, optional): Likewise. (default: :obj:`"coordinate"`)
        periodic (bool, optional): Whether all trees have to be periodic
            (:obj:`True`) or none may be (:obj:`False`): outputs depend on
            it. (default: :obj:`None`, either)
        k (int, optional): Number of nearest neighbors in the embedding where
            no edges are given. (default: :obj:`16`)
        basis (str, optional): What messages are told of positions; see
            :class:`~torch_geometric_erwin.nn.MPNNConv`.
            (default: :obj:`"position"`)
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
        norm (str or Callable, optional): The normalization function in
            pooling and unpooling. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)
        ckpt_grad (bool, optional): If set to :obj:`True`, keeps only what
            goes into each block and each step of message passing in
            training, and computes them again for gradients: less memory,
            more time. (default: :obj:`False`)

    Shapes:
        - **input:**
          point features :math:`(N, F_{in})`, a tree of :math:`N` points or
          positions :math:`(N, D)`, edge indices :math:`(2, E)` *(optional)*
        - **output:** point features :math:`(N, F_{out})`; with
          :obj:`decode=False` those of the :math:`M` points of the coarsest
          level, :math:`(M, F_{out})`, and its tree
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        out_channels: int | None = None,
        *,
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
        axes: str = 'coordinate',
        periodic: bool | None = None,
        k: int = 16,
        basis: str = 'position',
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
                         completion=completion, axes=axes,
                         periodic=periodic)
        check_positive('mp_steps', mp_steps, 0)
        check_positive('k', k)
        self.official = False

        def blocks(channels: int, heads: int, depth: int) -> ErwinConv:
            return ErwinConv(channels, channels, heads, dim=dim, depth=depth,
                             mlp_ratio=mlp_ratio, bias=bias, signed=signed,
                             dropout=dropout, ckpt_grad=ckpt_grad)

        kwargs = {'dim': dim, 'norm': norm, 'norm_kwargs': norm_kwargs}
        hidden = self.hidden_channels
        self.embedding = ErwinEmbedding(
            in_channels, hidden[0], mp_steps, dim=dim, k=k, basis=basis,
            num_basis=num_basis, cutoff=cutoff, ckpt_grad=ckpt_grad)
        self._make_stages(depths, heads, decoder_depths, decoder_heads,
                          blocks, partial(BallPooling, **kwargs),
                          partial(BallUnpooling, **kwargs))
        self.lin = None
        if out_channels is not None:
            self.lin = Linear(hidden[0 if decode else -1], out_channels)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        if self.lin is not None:
            self.lin.reset_parameters()
        for module in self.modules():  # as in the authors' code
            lazy = isinstance(module, Linear) and module.in_channels == -1
            if isinstance(module, Linear | torch.nn.Linear) and not lazy:
                torch.nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)

    def build_tree(
        self,
        pos: Tensor,
        batch: Tensor | None = None,
        *,
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
        ptr: Tensor | None = None,
    ) -> BallTree:
        r"""Builds the tree that the model works on, with its levels and
        orientations; see :meth:`torch_geometric_erwin.BallTree.build`.
        """
        tree = super().build_tree(pos, batch, box=box, pbc=pbc, ptr=ptr)
        return order_pairs(tree) if self.official else tree

    @staticmethod
    def from_official(
        state_dict: Mapping[str, Tensor],
        **config: Any,
    ) -> 'ErwinTransformer':
        r"""Makes a model with weights that were trained with the `authors'
        code <https://github.com/maxxxzdn/erwin>`_.

        Given a tree of theirs, by
        :meth:`torch_geometric_erwin.BallTree.from_permutation` with
        :obj:`virtual='copy'`, and their edges, outputs are theirs, too.
        Trees that the model builds itself hide virtual slots instead; they
        are the paper's (:obj:`completion='perfect'`), turned and ordered as
        in the authors' code. Where no slot is virtual, their balls hold the
        same points at all levels and in both orientations. Pooling depends on
        the order of points, too, which in the authors' code is arbitrary
        within a quarter of all pairs, so outputs agree as closely as theirs
        do if points are shuffled.

        Args:
            state_dict: The weights. Names may have a prefix; other modules'
                weights are left out.
            **config: The arguments of the authors' constructor:
                :obj:`c_in`, :obj:`c_hidden`, :obj:`ball_sizes`,
                :obj:`enc_num_heads`, :obj:`enc_depths`,
                :obj:`dec_num_heads`, :obj:`dec_depths`, :obj:`strides`,
                :obj:`rotate`, and optionally :obj:`decode`,
                :obj:`mlp_ratio`, :obj:`dimensionality`, :obj:`mp_steps`.

        Raises:
            ValueError: If the weights are not those of such a model.
        """
        return from_official(ErwinTransformer, state_dict, config)

    def forward(
        self,
        x: Tensor,
        tree: BallTree | None = None,
        edge_index: Tensor | None = None,
        *,
        pos: Tensor | None = None,
        batch: Tensor | None = None,
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
        edge_shift: Tensor | None = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
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
        x = self.embedding(x, tree, edge_index, edge_shift)
        (x, ), tree = self._through_levels((x, ), tree)
        if self.lin is not None:
            x = self.lin(x)
        return x if self.decode else (x, tree)
