import sys
from pathlib import Path

import pytest
import torch

from benchmarks.graphs.cli import main
from benchmarks.graphs.data import OGBData
from benchmarks.graphs.nets import GAT, GCN, GIN, GPS, ErwinGPS, Hybrid
from torch_geometric_erwin.transforms import AddLaplacianPos

pytest.importorskip('rdkit')
from tests.benchmarks.graphs.ogb_layouts import write_pcqm4mv2
from tests.benchmarks.graphs.test_pcqm4mv2 import SMILES, write_sdf

CONFIGS = Path(__file__).parents[3] / 'benchmarks' / 'configs' / 'graphs'
NETS = {'gcn': GCN, 'gat': GAT, 'gin': GIN, 'gps': GPS, 'performer': GPS,
        'erwin_gps': ErwinGPS, 'hybrid': Hybrid}
QUICK = ['--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false',
         '--trainer.enable_model_summary=false']


@pytest.fixture
def run(tmp_path, monkeypatch):
    # Lightning warns when there are arguments of pytest, too.
    monkeypatch.setattr(sys, 'argv', sys.argv[:1])

    def run(command, net, *args, **kwargs):
        line = [] if command is None else [command]
        return main([*line, f'--config={CONFIGS}/{net}.yaml', *args,
                     f'--trainer.default_root_dir={tmp_path}'], **kwargs)

    return run


@pytest.mark.parametrize('net', [path.stem
                                 for path in sorted(CONFIGS.glob('*.yaml'))])
def test_nets(net, run):
    cli = run(None, net, run=False)
    assert type(cli.model.net) is NETS[net]
    assert cli.config['name'] == f'ogbg_molsulfonamide_{net}'
    if net == 'performer':
        assert cli.model.net.attn_type == 'performer'
    assert cli.model.net.budget == 100_000


@pytest.mark.parametrize('data', [
    path.stem for path in sorted((CONFIGS / 'data').glob('*.yaml'))])
def test_data(data, run):
    cli = run(None, 'hybrid', f'--data={CONFIGS}/data/{data}.yaml',
              '--name=tried', run=False)
    assert (cli.datamodule.positions is None) == (data == 'pcqm4mv2')
    if isinstance(cli.datamodule, OGBData):
        assert data in cli.datamodule.name.replace('-', '')


def test_ogb(run, tmp_path, capsys):
    r"""From molecules to OGB's score, with its spread."""
    cli = run('fit', 'hybrid', *QUICK, '--seeds=0,1',
              f'--data.init_args.root={tmp_path}/ogb',
              '--data.init_args.positions.init_args.dim=3',
              '--trainer.max_epochs=3',
              '--model.net.init_args.budget=20000')
    task = cli.datamodule.task
    assert task.metric == 'rocauc'
    assert [len(graphs) for graphs in task.graphs.values()] == [813, 102, 102]
    folder = tmp_path / 'ogbg_molsulfonamide_hybrid'
    text = (folder / 'seeds.md').read_text()
    rows = [line.split(' | ')[1] for line in text.splitlines()
            if line.startswith('| 0') or line.startswith('| 1')]
    scores = [float(row.strip(' |')) for row in rows]
    assert len(scores) == 2 and scores[0] != scores[1]
    mean = sum(scores) / 2
    assert f'{mean:.3f}' in text.split('mean ± std | ')[1]
    assert '--seeds=0,1' in text and 'ogb 1' in text

    # The score is that of the best epoch.
    loaded = torch.load(folder / 'version_1' / 'checkpoints' / 'best.ckpt',
                        weights_only=True)
    net = cli.model
    net.load_state_dict(loaded['state_dict'])
    net.eval()
    with torch.no_grad():
        found = [(net(batch), batch.y)
                 for batch in cli.datamodule.test_dataloader()]
    out, y = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert task.evaluate(out, y) == pytest.approx(scores[1], abs=1e-4)


def test_dft_structures(run, tmp_path):
    root = tmp_path / 'ogb'
    write_pcqm4mv2(root / 'pcqm4m-v2')
    write_sdf(root / 'pcqm4m-v2-train.sdf', SMILES[:6])
    cli = run('fit', 'erwin_gps', *QUICK,
              f'--data={CONFIGS}/data/pcqm4mv2.yaml', '--name=pcqm4mv2',
              f'--data.init_args.root={root}', '--trainer.max_epochs=1',
              '--trainer.log_every_n_steps=1')
    metrics = cli.trainer.callback_metrics
    assert cli.datamodule.dim == 3
    assert metrics['test/mae'] > 0
    assert metrics['test/score'] == -metrics['test/mae']


def test_missing_data(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'Fetch http.*hiv\.zip'):
        run('fit', 'gcn', *QUICK, f'--data={CONFIGS}/data/molhiv.yaml',
            '--name=molhiv_gcn',
            f'--data.init_args.root={tmp_path}/ogb')


def test_other_data_need_another_name(run):
    with pytest.raises(ValueError, match="'--name' to be given"):
        run('fit', 'gcn', f'--data={CONFIGS}/data/molhiv.yaml')


def test_positions_from_two_places(run):
    with pytest.raises(ValueError, match="either 'structures' or 'positions'"):
        OGBData(structures='rdkit', positions=AddLaplacianPos(3))


def test_seeds_of_other_commands(run):
    with pytest.raises(ValueError, match="'--seeds' to follow 'fit'"):
        run('test', 'gcn', '--seeds=1')
