from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.inits import reset
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_edge_index,
    check_positive,
)
from torch_geometric_erwin.nn.frames import all_signs, principal_axes, turn
from torch_geometric_erwin.nn.models.framed_points import (
    FramedPoints,
    check_argument,
    check_rows,
    describe,
)
from torch_geometric_erwin.tree.checks import (
    check_finite,
    check_pos,
    check_range,
)
from torch_geometric_erwin.tree.clouds import find_clouds


class FrameAveraging(torch.nn.Module):
    r"""Makes any network of positions equivariant, by the frame averaging of
    the `"Frame Averaging for Invariant and Equivariant Network Design"
    <https://arxiv.org/abs/2110.03336>`_ paper: when a cloud is turned,
    mirrored or moved, scalars stay the same, and vectors turn along.

    The network sees each cloud from its own mean :math:`\mathbf{m}` and along
    its own principal axes :math:`\mathbf{U}`, the eigenvectors of the
    covariance of its positions, which turn as the cloud does. What remains is
    in which sense each axis points, so it sees all :math:`F` ways:

    .. math::
        \mathbf{X}^{\prime}, \mathbf{V}^{\prime} = \frac{1}{F}
        \sum_{\mathbf{S}} \left( \mathbf{X}_{\mathbf{S}}, \, \mathbf{U}
        \mathbf{S} \mathbf{V}_{\mathbf{S}} \right) \quad \textrm{with} \quad
        \mathbf{X}_{\mathbf{S}}, \mathbf{V}_{\mathbf{S}} = f_{\theta} \left(
        \mathbf{X}, \, \mathbf{S} \mathbf{U}^{\top} \mathbf{V}, \, \mathbf{S}
        \mathbf{U}^{\top} (\mathbf{p} - \mathbf{m}) \right)

    where :math:`\mathbf{S} = \textrm{diag}(\pm 1, \ldots, \pm 1)`:
    :math:`F = 2^D` for the group :math:`\mathrm{O}(D)`, or the
    :math:`2^{D - 1}` with which axes are right-handed for
    :math:`\mathrm{SO}(D)`.

    .. code-block:: python

        model = FrameAveraging(ErwinTransformer(
            16, 64, 32 + 3, depths=6, heads=4, ball_sizes=128), out_vectors=1)
        x, vec = model(x, pos=pos, batch=batch)  # [N, 32], [N, 3, 1]

    **What the network is.** It is called as :obj:`model(x, pos=pos,
    batch=batch)`, with :obj:`edge_index` and further arguments where these
    are given. Input vectors are its last :obj:`dim * in_vectors` input
    channels, output vectors its last :obj:`dim * out_vectors` output
    channels, in both cases :obj:`vec.view(N, dim * V)`: first the first
    coordinates of all vectors, then the second ones, and so on. Trees and
    neighbors that it looks for itself are built anew in each frame, as
    :class:`~torch_geometric_erwin.nn.ErwinTransformer` does. It may tell
    clouds apart only by :obj:`batch`.

    **Cost.** :math:`F` times that of the network, in one call on a batch of
    :math:`F B` clouds, frame by frame, or in :math:`F` calls. With
    :obj:`frames="random"` training costs one call on :math:`B` clouds, as in
    the `"FAENet: Frame Averaging Equivariant GNN for Materials Modeling"
    <https://arxiv.org/abs/2305.05577>`_ paper: each cloud is seen in one of
    its frames, drawn anew each time, and the symmetry holds in distribution.
    In evaluation all frames are averaged, and it holds exactly.

    **Where it holds.** Axes are unique, up to their senses, where all
    variances along them differ. As two of them become equal the axes turn
    quickly, and the output jumps there, as that of averages over so few
    frames must (`"Equivariant Frames and the Impossibility of Continuous
    Canonicalization" <https://arxiv.org/abs/2402.16077>`_). If they agree to
    half of the digits (relative to the largest variance, to :math:`3 \cdot
    10^{-4}` in float32), axes are turned towards those of space within the
    plane that is left open: the output is finite and does not depend on the
    order of the points, but on how the cloud lies in space. So it is for
    cubes and other shapes of high symmetry. Where the variances that agree
    are zero (all points on a line, at one place, or one alone) and there are
    no input vectors, symmetry is kept all the same, as the average over all
    frames takes away what is perpendicular.

    **Derivatives** with respect to positions, first and second, go through
    means and axes, so that forces are those of the averaged energy, and no
    torque is left. They grow as variances approach each other. Where these
    agree as above, axes are taken to be constants. What the network chooses,
    such as balls and neighbors, makes the output jump as it does without
    frames.

    Args:
        model (torch.nn.Module): The network.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        in_vectors (int, optional): Number of each input sample's vectors.
            (default: :obj:`0`)
        out_vectors (int, optional): Number of each output sample's vectors.
            (default: :obj:`0`, only scalars are returned)
        group (str, optional): Turns and mirrors (:obj:`"O"`), or turns only
            (:obj:`"SO"`), so that the network may tell a cloud from its
            mirror image. (default: :obj:`"O"`)
        frames (str, optional): Whether training averages over
            :obj:`"all"` frames, or takes one at :obj:`"random"` for each
            cloud. (default: :obj:`"all"`)
        loop (bool, optional): If set to :obj:`True`, calls the network once
            for each frame: less memory where no gradients are needed, or
            the network keeps little for them (:obj:`ckpt_grad`). Batch
            normalization then sees one frame of each cloud at a time, and
            the symmetry does not hold in training. (default: :obj:`False`)
        per_cloud (bool, optional): Whether the network returns one row per
            cloud, as it does if it ends in pooling, instead of one per
            point. (default: :obj:`False`)

    Shapes:
        - **input:**
          features :math:`(N, F_{in})` or whatever the network takes, with
          one row per point; vectors :math:`(N, D, \textrm{in\_vectors})`,
          positions :math:`(N, D)`, edge indices :math:`(2, E)` *(optional)*
        - **output:** scalars :math:`(N, F_{out} - D \cdot
          \textrm{out\_vectors})` of a network with :math:`F_{out}` output
          channels *(with* :obj:`out_vectors` *also vectors* :math:`(N, D,
          \textrm{out\_vectors})` *)*; with :obj:`per_cloud=True`, :math:`B`
          rows for as many clouds
    """
    signs: Tensor

    def __init__(
        self,
        model: Callable[..., Tensor],
        dim: int = 3,
        *,
        in_vectors: int = 0,
        out_vectors: int = 0,
        group: str = 'O',
        frames: str = 'all',
        loop: bool = False,
        per_cloud: bool = False,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise ValueError(f"Expected 'model' to be a module (got "
                             f"{type(model).__name__})")
        check_positive('dim', dim)
        check_positive('in_vectors', in_vectors, 0)
        check_positive('out_vectors', out_vectors, 0)
        check_choice('group', group, ('O', 'SO'))
        check_choice('frames', frames, ('all', 'random'))

        self.model = model
        self.dim = dim
        self.in_vectors = in_vectors
        self.out_vectors = out_vectors
        self.group = group
        self.frames = frames
        self.loop = loop
        self.per_cloud = per_cloud
        self.register_buffer('signs', all_signs(dim, group == 'SO'),
                             persistent=False)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        reset(self.model)

    def forward(
        self,
        x: OptTensor,
        vec: OptTensor = None,
        edge_index: OptTensor = None,
        *,
        pos: Tensor,
        batch: OptTensor = None,
        **kwargs: Any,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor, optional): The features of the points; if
                :obj:`None`, the network gets input vectors only, or
                :obj:`None`.
            vec (torch.Tensor, optional): The vectors of the points.
                (default: :obj:`None`)
            edge_index (torch.Tensor, optional): A graph of the points, which
                is repeated for each frame. (default: :obj:`None`, the network
                is not given any)
            pos (torch.Tensor): The positions.
            batch (torch.Tensor, optional): The cloud of each point.
                (default: :obj:`None`, all are one cloud)
            **kwargs (optional): Further arguments of the network. Tensors
                have one row per edge if their name begins with
                :obj:`edge_`, one row per point otherwise, or no dimension.
                They hold scalars: they are repeated for each frame, but not
                turned. All else is passed on as it is.

        Raises:
            ValueError: If inputs do not fit each other or the module; if
                there is a :obj:`tree`, which would hold for one frame only,
                or a periodic cell, which has no mean and axes of its own; if
                the network does not return one row per point, or per cloud,
                with enough channels.
        """
        self._check(x, vec, edge_index, pos, kwargs)
        clouds = find_clouds(pos, batch, None)
        num_clouds, batch = clouds.ptr.size(0) - 1, clouds.batch
        offset, axes = principal_axes(pos, batch, num_clouds,
                                      self.group == 'SO')
        inverse = axes[batch].mT
        place = turn(inverse, offset.unsqueeze(2)).squeeze(2).to(pos.dtype)
        if vec is not None:
            vec = turn(inverse, vec).to(vec.dtype)
        cloud = FramedPoints(x, vec, edge_index, place, batch, num_clouds,
                             kwargs)

        signs = self._draw(num_clouds)
        parts = signs.split(1) if self.loop else [signs]
        outs = [self._call(cloud, part) for part in parts]
        x, vec = (sum(one / len(outs) for one in out)
                  for out in zip(*outs, strict=True))
        if self.out_vectors == 0:
            return x
        axes = axes if self.per_cloud else axes[batch]
        return x, turn(axes, vec).to(x.dtype)

    def _draw(self, num_clouds: int) -> Tensor:
        r"""Returns in which senses axes point, :math:`(F, B, D)`."""
        if self.training and self.frames == 'random':
            one = torch.randint(len(self.signs), (1, num_clouds),
                                device=self.signs.device)
            return self.signs[one]
        return self.signs.unsqueeze(1).expand(-1, num_clouds, -1)

    def _call(self, cloud: FramedPoints,
              signs: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the means of scalars and vectors over frames of each cloud,
        in senses of shape :math:`(F, B, D)`, the vectors along its axes.
        """
        args, kwargs = cloud.seen(signs[:, cloud.batch])
        out = self.model(*args, **kwargs)
        signs = signs if self.per_cloud else signs[:, cloud.batch]
        self._check_output(out, signs.size(0) * signs.size(1))
        out = out.reshape(*signs.shape[:2], out.size(1))
        last = self.dim * self.out_vectors
        x, vec = out.split([out.size(2) - last, last], dim=2)
        vec = vec.unflatten(2, (self.dim, self.out_vectors))
        return x.mean(0), (signs.unsqueeze(3).to(vec.dtype) * vec).mean(0)

    def _check(self, x: Any, vec: Any, edge_index: Any, pos: Any,
               kwargs: dict[str, Any]) -> None:
        check_pos(pos)
        if pos.size(1) != self.dim:
            raise ValueError(f"Expected 'pos' to have {self.dim} dimensions, "
                             f"as 'dim' says (got {pos.size(1)})")
        if not torch.compiler.is_compiling():
            check_finite(pos)
            check_range(pos)
        if x is not None:
            check_rows('x', x, pos.size(0), 'point')
        self._check_vectors(vec, x, pos)
        if edge_index is not None:
            check_edge_index(edge_index)
        for name, value in kwargs.items():
            check_argument(name, value, pos.size(0), edge_index)

    def _check_vectors(self, vec: Any, x: Any, pos: Tensor) -> None:
        if self.in_vectors == 0:
            if vec is not None:
                raise ValueError("Expected no 'vec', as 'in_vectors' is 0 "
                                 "(got one)")
            return
        shape = [pos.size(0), self.dim, self.in_vectors]
        if not isinstance(vec, Tensor) or list(vec.shape) != shape:
            raise ValueError(f"Expected 'vec' to be a tensor of shape "
                             f"[num_points, dim, in_vectors], {shape} (got "
                             f"{describe(vec)})")
        if not vec.is_floating_point():
            raise ValueError(f"Expected 'vec' to be floating-point (got "
                             f"{vec.dtype})")
        if x is not None and (x.dim() != 2 or x.dtype != vec.dtype):
            raise ValueError(f"Expected 'x' to have shape [num_points, "
                             f"channels] and the type of 'vec', {vec.dtype} "
                             f"(got {x.dtype} of shape {list(x.shape)})")

    def _check_output(self, out: Any, size: int) -> None:
        least = self.dim * self.out_vectors
        if (not isinstance(out, Tensor) or out.dim() != 2
                or out.size(0) != size or out.size(1) < least
                or not out.is_floating_point()):
            what = 'cloud' if self.per_cloud else 'point'
            raise ValueError(f"Expected 'model' to return floating-point "
                             f"numbers, one row per {what} of all frames, "
                             f"{size}, with at least 'dim * out_vectors' "
                             f"columns, {least}; 'per_cloud' says which (got "
                             f"{describe(out)})")

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.model}, dim={self.dim}, '
                f'group={self.group!r}, frames={self.frames!r})')
