import os
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    r"""Writes checkpoints so that a run that is killed meanwhile leaves the
    one before whole.

    Lightning writes to the system's temporary folder and moves the file from
    there, which is a copy if that is another file system.
    """
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any,
                        storage_options: Any = None) -> None:
        part = f'{path}.part'
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)
