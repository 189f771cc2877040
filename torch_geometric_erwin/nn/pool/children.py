from torch import Tensor

from torch_geometric_erwin.tree import BallTree


def relative_positions(tree: BallTree, coarse: BallTree) -> Tensor:
    r"""Returns the positions of each coarse point's children relative to
    it, shape :math:`(M, \text{stride}, D)`; zero for virtual ones.
    """
    index, mask = tree.children()
    offset = tree.pos[index] - coarse.pos.unsqueeze(1)
    return offset if mask is None else offset * mask.unsqueeze(-1)
