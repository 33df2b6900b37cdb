"""Which checkpoints of a training are whole, told without torch.

The probe lists the files of each checkpoint after the last was written, on all ranks
(`probe/ftprobe/checkpoint.py`). One without a list was cut short, or written just before the
training was killed, or by something else: its parts are looked at one by one.
"""

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

from orchestrator.artifacts import read_weights
from orchestrator.errors import ArtifactError, LaunchError
from orchestrator.files import read_json

LIST = "ft-checkpoint.json"
SHARDED = ("pytorch_model_fsdp_*/.metadata", "pytorch_model_fsdp*.bin")
"""Weights in a form of FSDP that only training reads."""
FSDP_PARTS = ("pytorch_model_fsdp_*", "optimizer_*")


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a training folder that were written to the end, oldest first."""
    return [checkpoint for checkpoint in checkpoints(folder) if not flaw(checkpoint)]


def checkpoints(folder: Path) -> list[Path]:
    """What the trainer takes for its checkpoints, oldest first; `checkpoint-400-good` is none."""
    found = []
    for path in folder.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal() and path.is_dir():
            found.append((int(step), path))
    return [path for _, path in sorted(found)]


def flaw(checkpoint: Path) -> str:
    """What is missing or broken in a checkpoint; empty if it is whole.

    Raises:
        LaunchError: it cannot be read now, so nobody knows: it must not be deleted for that.
    """
    try:
        found = _flaw(checkpoint)
        if found:
            _read_all(checkpoint)
    except OSError as error:
        raise LaunchError(
            f"cannot read {error.filename or checkpoint}: {error.strerror}",
            hint="it belongs to a checkpoint, which is kept; make it readable, then --resume",
        ) from error
    return found


def _read_all(checkpoint: Path) -> None:
    """Raise what keeps a file from being read: permissions, a disk or a server with a fault."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, files in os.walk(checkpoint, onerror=refuse):
        for name in files:
            with contextlib.suppress(FileNotFoundError), Path(folder, name).open("rb") as handle:
                handle.read(1)


def _flaw(checkpoint: Path) -> str:
    step = checkpoint.name.rpartition("-")[2]
    state = read_json(checkpoint / "trainer_state.json")
    if not isinstance(state, dict):
        return "trainer_state.json, which is written last, is missing or cut short"
    if str(state.get("global_step")) != step:
        return f"trainer_state.json is of step {state.get('global_step')}"
    known = read_json(checkpoint / LIST)
    files = known.get("files") if isinstance(known, dict) else None
    if isinstance(files, dict):
        return _not_as_listed(checkpoint, files)
    return _weights(checkpoint) or _cut_short(checkpoint) or _state(checkpoint)


def _not_as_listed(checkpoint: Path, files: dict[str, Any]) -> str:
    for name, size in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} of {size} bytes"
    return ""


def _weights(checkpoint: Path) -> str:
    if any(True for pattern in SHARDED for _ in checkpoint.glob(pattern)):
        return ""
    stem = "adapter_model" if (checkpoint / "adapter_config.json").is_file() else "model"
    try:
        read_weights(checkpoint, stem)
    except ArtifactError as error:
        return error.message
    return ""


def _cut_short(checkpoint: Path) -> str:
    """What torch saves is a zip archive, whose directory is at its end; FSDP's parts have theirs
    in a file that is written last."""
    for part in (path for pattern in FSDP_PARTS for path in checkpoint.glob(pattern)):
        if part.is_dir() and not (part / ".metadata").is_file():
            return f"{part.name} is cut short"
    for file in sorted(checkpoint.rglob("*")):
        if file.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(file):
            return f"{file.relative_to(checkpoint)} is cut short"
    return ""


def _state(checkpoint: Path) -> str:
    """The optimizer's and the random generators' state, of every rank; or none, if so asked for."""
    random = {file.stem for file in checkpoint.glob("rng_state*.pth")}
    ranks = len(random)
    several = {f"rng_state_{rank}" for rank in range(max(ranks, 2))}
    if random not in (set(), {"rng_state"}, several):
        return "the state of a rank's random generators is missing"
    scheduler = (checkpoint / "scheduler.pt").is_file()
    latest = checkpoint / "latest"
    if latest.is_file():
        named = latest.read_text("utf-8", "replace").strip()
        return _deepspeed(checkpoint / named.replace("\0", "?"), ranks)
    optimizer = any(checkpoint.glob("optimizer*"))
    if not (ranks or scheduler or optimizer or any(checkpoint.glob("global_step*"))):
        return ""  # weights only
    if not optimizer:
        return "the optimizer's state is missing"
    if not scheduler:  # the trainer would drop the optimizer's state, too, without a word
        return "the learning rate's schedule (scheduler.pt) is missing"
    return "" if ranks else "the state of the random generators is missing"


def _deepspeed(folder: Path, ranks: int) -> str:
    if not folder.is_dir():
        return f"{folder.name}, which `latest` names, is missing"
    parts = len(list(folder.glob("*_optim_states.pt")))
    if not any(folder.glob("*_model_states.pt")) or parts < max(ranks, 1):
        return f"{folder.name} has the optimizer's state of {parts} of {max(ranks, 1)} ranks"
    return ""
