import torch
from torch import Tensor
from torch_geometric.utils import scatter
from torchmetrics import Metric


class RelativeL2(Metric):
    r"""The mean over clouds of the error relative to the targets, both by
    the norm over all points and channels of a cloud:

    .. math::
        \frac{1}{B} \sum_{b=1}^B \frac{\lVert \hat{\mathbf{Y}}_b -
        \mathbf{Y}_b \rVert_2}{\lVert \mathbf{Y}_b \rVert_2}

    It is not finite if all targets of a cloud are zero.
    """
    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sum_of_ratios: Tensor
    num_clouds: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ('sum_of_ratios', 'num_clouds'):
            self.add_state(name, torch.zeros(()), dist_reduce_fx='sum')

    def update(self, preds: Tensor, target: Tensor, batch: Tensor) -> None:
        r"""Adds the clouds of a batch, of shapes :math:`(N, C)` and
        :math:`(N)`.
        """
        squares = torch.stack([
            (preds - target).square().sum(dim=1),
            target.square().sum(dim=1)], dim=1)
        error, norm = scatter(squares, batch).sqrt().unbind(dim=1)
        self.sum_of_ratios += (error / norm).sum()
        self.num_clouds += len(norm)

    def compute(self) -> Tensor:
        return self.sum_of_ratios / self.num_clouds
