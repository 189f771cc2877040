from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_edge_index,
    check_edge_shift,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.conv import ErwinConv
from torch_geometric_erwin.nn.models.erwin_embedding import ErwinEmbedding
from torch_geometric_erwin.nn.models.official import from_official
from torch_geometric_erwin.nn.models.official_tree import order_pairs
from torch_geometric_erwin.nn.pool import BallPooling, BallUnpooling
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree
from torch_geometric_erwin.tree.checks import check_levels, check_rotations


class ErwinTransformer(NotScriptable, torch.nn.Module):
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
        super().__init__()
        self.ball_sizes, self.strides = check_levels(ball_sizes, strides)
        last = len(self.strides)
        hidden = _each('hidden_channels', hidden_channels, last + 1)
        depths = _each('depths', depths, last + 1)
        heads = _each('heads', heads, last + 1)
        back = _each('decoder_depths', decoder_depths, last, depths[:last])
        back_heads = _each('decoder_heads', decoder_heads, last, heads[:last])
        if in_channels != -1:
            check_positive('in_channels', in_channels)
        check_positive('mp_steps', mp_steps, 0)
        check_positive('k', k)
        check_choice('completion', completion, ('balanced', 'perfect'))

        self.in_channels = in_channels
        self.hidden_channels = hidden
        self.out_channels = out_channels
        self.dim = dim
        self.decode = decode
        self.rotations = check_rotations(rotations, dim)
        self.completion = completion
        self.periodic = periodic
        self.official = False

        def blocks(channels: int, heads: int, depth: int) -> ErwinConv:
            return ErwinConv(channels, channels, heads, dim=dim, depth=depth,
                             mlp_ratio=mlp_ratio, bias=bias, signed=signed,
                             dropout=dropout, ckpt_grad=ckpt_grad)

        pool = {'dim': dim, 'norm': norm, 'norm_kwargs': norm_kwargs}
        self.embedding = ErwinEmbedding(
            in_channels, hidden[0], mp_steps, dim=dim, k=k, basis=basis,
            num_basis=num_basis, cutoff=cutoff, ckpt_grad=ckpt_grad)
        self.encoder = torch.nn.ModuleList(
            blocks(*args) for args in zip(hidden, heads, depths, strict=True))
        self.pools = torch.nn.ModuleList(
            BallPooling(hidden[i], hidden[i + 1], self.strides[i], **pool)
            for i in range(last))
        self.unpools = torch.nn.ModuleList()
        self.decoder = torch.nn.ModuleList()
        if decode:
            self.unpools.extend(
                BallUnpooling(hidden[i + 1], hidden[i], self.strides[i],
                              **pool) for i in range(last))
            self.decoder.extend(
                blocks(*args)
                for args in zip(hidden[:last], back_heads, back, strict=True))
        self.lin = None
        if out_channels is not None:
            check_positive('out_channels', out_channels)
            self.lin = Linear(hidden[0 if decode else -1], out_channels)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        modules = [self.embedding, *self.encoder, *self.pools, *self.unpools,
                   *self.decoder]
        for module in modules if self.lin is None else [*modules, self.lin]:
            module.reset_parameters()
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
        tree = BallTree.build(pos, batch, ball_size=self.ball_sizes,
                              strides=self.strides, rotations=self.rotations,
                              completion=self.completion, box=box, pbc=pbc,
                              ptr=ptr)
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
        check_input(x, tree, self.in_channels, self.dim)
        if edge_index is not None:
            check_edge_index(edge_index)
            check_edge_shift(edge_shift, edge_index, self.dim)
        x = self.embedding(x, tree, edge_index, edge_shift)

        # From here on, balls are runs of rows, and small numbers tell where.
        level, index, inverse = tree.centered().in_slot_order()
        x, skips = x[index], []
        for conv, pool in zip(self.encoder, self.pools, strict=False):
            offsets = level.offsets(None)
            x = conv(x, level, offsets)
            skips.append((x, level, offsets))
            x, level = pool(x, level)
        x = self.encoder[-1](x, level)
        for i in reversed(range(len(self.decoder))):
            skip, fine, offsets = skips[i]
            x = self.unpools[i](x, level, skip, fine)
            x, level = self.decoder[i](x, fine, offsets), fine

        whole = self.decode or not self.strides
        if whole:
            x = x[inverse]
        if self.lin is not None:
            x = self.lin(x)
        return x if self.decode else (x, tree if whole else _last(tree))

    def _find_tree(
        self,
        tree: BallTree | None,
        pos: Tensor | None,
        batch: Tensor | None,
        box: Tensor | Sequence[Any] | float | None,
        pbc: Tensor | Sequence[Any] | bool | None,
    ) -> BallTree:
        if (tree is None) == (pos is None):
            raise ValueError(f"Expected either 'tree' or 'pos' to be given "
                             f"(got {'neither' if pos is None else 'both'})")
        if tree is None:
            assert pos is not None
            self._check_periodic(box is not None)
            return self.build_tree(pos, batch, box=box, pbc=pbc)
        if any(arg is not None for arg in (batch, box, pbc)):
            raise ValueError("Expected 'batch', 'box' and 'pbc' to be given "
                             "along with 'pos' (got one along with 'tree')")
        if not isinstance(tree, BallTree):
            raise ValueError(f"Expected 'tree' to be a BallTree "
                             f"(got {type(tree).__name__})")
        self._check_periodic(tree.box is not None)
        ours = (self.ball_sizes, self.strides, len(self.rotations))
        theirs = (tree.ball_sizes, tree.strides, tree.num_orientations)
        if ours != theirs:
            raise ValueError(
                f"Expected 'tree' to have the model's ball sizes, strides "
                f"and number of orientations, {ours}: use 'build_tree' of "
                f"the model (got {theirs})")
        how = (tuple(self.rotations), self.completion)
        if tree.rotations is not None and how != (tree.rotations,
                                                  tree.completion):
            raise ValueError(
                f"Expected 'tree' to be built with the model's 'rotations' "
                f"and 'completion', {how}: use 'build_tree' of the model "
                f"(got {(tree.rotations, tree.completion)})")
        return tree

    def _check_periodic(self, is_periodic: bool) -> None:
        if self.periodic not in (None, is_periodic):
            raise ValueError(
                f"Expected a {'' if self.periodic else 'tree without a '}"
                f"periodic {'tree' if self.periodic else 'cell'}, as the "
                f"model's 'periodic={self.periodic}' says (got one "
                f"{'with' if is_periodic else 'without'} a 'box')")

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.hidden_channels}, {self.out_channels}, '
                f'ball_sizes={self.ball_sizes}, strides={self.strides})')


def _last(tree: BallTree) -> BallTree:
    r"""Returns the coarsest level, where the caller's points are."""
    tree, _, _ = tree.in_slot_order()
    while tree.num_levels > 1:
        tree = tree.coarsen()
    return tree


def _each(name: str, value: int | Sequence[int], number: int,
          default: Sequence[int] = ()) -> list[int]:
    r"""Returns one number for each level; a single one stands for all."""
    values = ([value] * number if isinstance(value, int) else list(value)
              or list(default))
    if len(values) != number:
        raise ValueError(f"Expected '{name}' to be an integer or to have one "
                         f"entry per level, {number} (got {values})")
    return values
