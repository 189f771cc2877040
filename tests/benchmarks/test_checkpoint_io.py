import os

import pytest
import torch

from benchmarks.experiments.checkpoint_io import AtomicCheckpointIO


def test_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'last.ckpt'
    io = AtomicCheckpointIO()
    io.save_checkpoint({'step': 1}, path)
    assert torch.load(path) == {'step': 1}

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', killed)
        with pytest.raises(KeyboardInterrupt):
            io.save_checkpoint({'step': 2}, path)
    assert torch.load(path) == {'step': 1}
    io.save_checkpoint({'step': 3}, path)
    assert torch.load(path) == {'step': 3}
    assert os.listdir(path.parent) == ['last.ckpt']
