from typing import Any

from benchmarks.experiments.data.unsteady_flows import UnsteadyFlows
from torch_geometric_erwin.datasets import MovingJet


class MovingJetData(UnsteadyFlows):
    r"""The windows of :class:`~torch_geometric_erwin.datasets.MovingJet`.
    Its simulations begin with air at rest, so that validation and test
    windows do not begin at once. Making one takes four seconds of a core, by
    default, and it has 1,600 to 1,900 nodes and 12 MB.

    Args:
        root (str, optional): Where to keep the simulations.
            (default: :obj:`"runs/data/moving_jet"`)
        num_train (int, optional): Number of simulations to train on.
            (default: :obj:`48`)
        num_val (int, optional): Number of simulations to validate on.
            (default: :obj:`8`)
        num_test (int, optional): Number of simulations to test on.
            (default: :obj:`8`)
        num_steps (int, optional): See the dataset, as for the options that
            follow. (default: :obj:`160`)
        interval (int, optional): (default: :obj:`32`)
        shape (tuple, optional): (default: :obj:`(64, 128)`)
        data_seed (int, optional): Another one makes other simulations.
            (default: :obj:`0`)
        horizon (int, optional): Number of steps of test windows, the first
            of which is given. (default: :obj:`101`)
        start (int, optional): The step that validation and test windows
            begin with. (default: :obj:`50`)
        **kwargs (optional): Arguments of :class:`UnsteadyFlows`.
    """
    def __init__(
        self,
        root: str = 'runs/data/moving_jet',
        num_train: int = 48,
        num_val: int = 8,
        num_test: int = 8,
        num_steps: int = 160,
        interval: int = 32,
        shape: tuple[int, int] = (64, 128),
        data_seed: int = 0,
        horizon: int = 101,
        start: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(horizon=horizon, start=start, **kwargs)
        self.root = root
        self.sizes = {'train': num_train, 'val': num_val, 'test': num_test}
        self.options: dict[str, Any] = {
            'num_steps': num_steps, 'interval': interval, 'shape': shape,
            'seed': data_seed,
        }

    def open(self, split: str, window: int, start: int | str) -> MovingJet:
        return MovingJet(self.root, split, self.sizes[split], window=window,
                         start=start, **self.options)
