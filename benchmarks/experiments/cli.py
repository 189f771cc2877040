r"""Trains and tests networks from configuration files."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from benchmarks.experiments.checkpoint_io import AtomicCheckpointIO
from benchmarks.experiments.data import Clouds
from benchmarks.experiments.normalized import Normalized

# What networks learn where a configuration does not say.
TASK = 'benchmarks.experiments.regression.Regression'
DEFAULTS = {'default_root_dir': 'runs', 'max_epochs': 100,
            'log_every_n_steps': 10}


class ExperimentCLI(LightningCLI):
    r"""Lightning's command line, with a folder for each run:
    :obj:`runs/NAME/version_0` and so on hold its configuration, logs and,
    under :obj:`checkpoints`, :obj:`last.ckpt` of the last epoch and
    :obj:`best.ckpt` of the one with the best :attr:`monitor`.
    """
    monitor = 'val/r2'

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self.subclass_mode_model:
            parser.set_defaults({'model': {'class_path': TASK}})
        parser.add_argument('--name', default='experiment',
                            help='The name of the folder of its runs.')

    def after_instantiate_classes(self) -> None:
        # So that `Regression.load_from_checkpoint(path)` finds its network,
        # and any other task's class does.
        model = self.config_dump['model']
        self.model.hparams['net'] = model.get('init_args', model)['net']

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, 'trainer')
        name = self._get(self.config_init, 'name')
        csv = CSVLogger(config.default_root_dir, name,
                        flush_logs_every_n_steps=1)
        if config.logger is None:
            kwargs['logger'] = [csv, TensorBoardLogger(
                csv.save_dir, csv.name, csv.version)]
        if config.enable_checkpointing is not False:
            self.trainer_defaults['callbacks'] = checkpoints(
                self._checkpoint_folder() or Path(csv.log_dir, 'checkpoints'),
                self.monitor)
        kwargs['plugins'] = [*(config.plugins or []), AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _checkpoint_folder(self) -> Path | None:
        r"""A run that is resumed goes on to replace its own checkpoints: the
        best one may be from before.
        """
        path = self._get(self.config_init, 'ckpt_path')
        if path is None:
            return None
        if not Path(path).is_file():
            raise FileNotFoundError(f"Expected 'ckpt_path' to be an existing "
                                    f"file (got {str(path)!r})")
        return Path(path).parent


def checkpoints(folder: Path, monitor: str) -> list[Callback]:
    # `save_last=True` would leave the last epoch out unless it is the best.
    return [
        ModelCheckpoint(folder, 'best', monitor=monitor, mode='max',
                        enable_version_counter=False),
        ModelCheckpoint(folder, 'last', save_on_train_epoch_end=True,
                        enable_version_counter=False),
    ]


def main(args: list[str] | None = None, run: bool = True) -> ExperimentCLI:
    r"""Runs a command line.

    Args:
        args: The arguments. (default: those that Python was called with)
        run: Whether to do what the command says; if set to :obj:`False`,
            there is no command and all is only set up.
    """
    return ExperimentCLI(Normalized, Clouds, subclass_mode_model=True,
                         subclass_mode_data=True,
                         trainer_defaults=dict(DEFAULTS),
                         seed_everything_default=0, args=args, run=run,
                         auto_configure_optimizers=False,
                         save_config_kwargs={'overwrite': True})
