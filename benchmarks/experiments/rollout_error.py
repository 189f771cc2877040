import torch
from torch import Tensor
from torch_geometric.utils import scatter
from torchmetrics import Metric


class RolloutError(Metric):
    r"""How far predicted flows are from true ones at each step, as the Erwin
    and EAGLE papers measure it: for the velocity :math:`\mathbf{v}`, and
    alike for the two pressures,

    .. math::
        e_t = \frac{1}{B} \sum_{b=1}^B \frac{1}{N_b} \sum_{i=1}^{N_b}
        \sqrt{\tfrac{1}{2} \lVert \hat{\mathbf{v}}_{it} -
        \mathbf{v}_{it} \rVert^2}

    Result: :math:`(T, 2)`, the errors of velocity and pressure.
    """
    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sum_of_errors: Tensor
    num_windows: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ('sum_of_errors', 'num_windows'):
            self.add_state(name, torch.zeros(()), dist_reduce_fx='sum')

    def update(self, preds: Tensor, target: Tensor, batch: Tensor) -> None:
        r"""Adds the windows of a batch, of shapes :math:`(N, T, 4)`, in the
        units of the data, and :math:`(N)`.
        """
        square = (preds - target).square().unflatten(2, (2, 2))
        error = scatter(square.mean(dim=3).sqrt(), batch, reduce='mean')
        self.sum_of_errors = self.sum_of_errors + error.sum(dim=0)
        self.num_windows += len(error)

    def compute(self) -> Tensor:
        return self.sum_of_errors / self.num_windows


def running_mean(curve: Tensor) -> Tensor:
    r"""Averages over all steps up to each, shape :math:`(T, C)`."""
    steps = torch.arange(1, len(curve) + 1, device=curve.device)
    return curve.cumsum(dim=0) / steps[:, None]
