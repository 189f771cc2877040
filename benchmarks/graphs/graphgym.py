r"""Runs an experiment of PyG's GraphGym with layers on ball trees:

    python -m benchmarks.graphs.graphgym \
        --cfg benchmarks/configs/graphgym/karate.yaml [--repeat 3] \
        [erwin.ball_size 16 optim.max_epoch 20 ...]

Metrics of each epoch are in :obj:`{out_dir}/{name of the file}/{seed}`, and
over all seeds in :obj:`agg`; what is there from an earlier run is deleted, as
GraphGym does.
"""

import argparse
import logging
import warnings
from typing import Any

import torch
from torch_geometric import seed_everything
from torch_geometric.graphgym.cmd_args import parse_args
from torch_geometric.graphgym.config import (
    cfg,
    dump_cfg,
    load_cfg,
    set_cfg,
    set_out_dir,
    set_run_dir,
)
from torch_geometric.graphgym.logger import set_printing
from torch_geometric.graphgym.model_builder import create_model
from torch_geometric.graphgym.train import GraphGymDataModule, train
from torch_geometric.graphgym.utils.agg_runs import agg_runs
from torch_geometric.graphgym.utils.comp_budget import params_count
from torch_geometric.graphgym.utils.device import auto_select_device

import torch_geometric_erwin.graphgym  # noqa: F401  registers its modules

# Lightning's check before training would be logged as an epoch, and logs of
# its own go where no run is deleted.
TRAINER: dict[str, Any] = {
    'num_sanity_val_steps': 0, 'logger': False, 'enable_progress_bar': False}
# GraphGym pins memory also where there is no GPU, and reads datasets' storage.
HARMLESS = (".*'pin_memory' argument is set", '.*directly access the internal',
            '.*does not have many workers', '.*`isinstance.treespec, LeafSpec')


def main(args: argparse.Namespace) -> None:
    set_cfg(cfg)
    cfg.out_dir = 'runs/graphgym'
    cfg.tensorboard_agg = False  # needs tensorboardX
    load_cfg(cfg, args)
    set_out_dir(cfg.out_dir, args.cfg_file)
    dump_cfg(cfg)
    torch.set_num_threads(cfg.num_threads)
    for _ in range(args.repeat):
        run()
        cfg.seed += 1
    agg_runs(cfg.out_dir, cfg.metric_best)


def run() -> None:
    for message in HARMLESS:
        warnings.filterwarnings('ignore', message)
    set_run_dir(cfg.out_dir)
    set_printing()
    seed_everything(cfg.seed)
    auto_select_device()
    datamodule = GraphGymDataModule()
    model = create_model()
    cfg.params = params_count(model)
    logging.info(model)
    logging.info('Num parameters: %s', cfg.params)
    train(model, datamodule, logger=True, trainer_config=TRAINER)


if __name__ == '__main__':
    main(parse_args())
