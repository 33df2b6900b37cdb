"""Checkpoints that can be told from half-written ones, and that outlive a clock set back."""

import functools
from pathlib import Path
from typing import Any

from .request import rank, write_json

LIST = "ft-checkpoint.json"


def list_files(folder: Path, step: int) -> None:
    """Write down which files a finished checkpoint has, and how long they are.

    Its files are many, of several ranks, and of another kind for each way of sharding; none is
    always the last. A checkpoint whose files are as listed was written to the end.
    """
    if rank() == 0 and folder.is_dir():
        sizes = {
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != LIST
        }
        write_json(folder / LIST, {"step": step, "files": sizes})


def rotate_by_step() -> None:
    """Let the trainer delete the checkpoint of the smallest step, not of the oldest time.

    transformers 5.6.0 and 5.16.1 sort by time (``Trainer._save_checkpoint`` calls
    ``rotate_checkpoints(use_mtime=True)``): after the clock was set back, or the files were copied,
    it deletes the checkpoint that it has just written.
    """
    from transformers import trainer

    rotate: Any = getattr(trainer, "rotate_checkpoints", None)
    if rotate is None or isinstance(rotate, ByStep):
        return
    trainer.rotate_checkpoints = ByStep(rotate)


@functools.cache  # torch cannot sort two of the same priority
def know_numbered_cpus() -> None:
    """Let checkpoints be loaded onto ``cpu:0``, ``cpu:1``.

    With several processes the trainer loads the optimizer onto its device, which llamafactory 0.9.5
    numbers by rank on a CPU too; torch 2.11 and 2.13 only know ``cpu`` ("don't know how to restore
    data location"), so no training of several CPU processes could be resumed.
    """
    from torch.serialization import register_package

    def restore(storage: Any, location: str) -> Any:
        return storage if location.startswith("cpu:") else None

    register_package(100, lambda storage: None, restore)


class ByStep:
    """``rotate_checkpoints`` that never looks at times."""

    def __init__(self, rotate: Any) -> None:
        self.rotate = rotate
        functools.update_wrapper(self, rotate)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Rotate by step."""
        return self.rotate(*positional, **{**named, "use_mtime": False})
