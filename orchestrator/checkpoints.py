"""Which checkpoints of a training are whole, told without torch.

The probe lists the files of each checkpoint after the last was written, on all ranks
(`probe/ftprobe/checkpoint.py`). One without a list was cut short, or written just before the
training was killed, or by something else: its parts are looked at one by one.
"""

import zipfile
from pathlib import Path
from typing import Any

from orchestrator.artifacts import read_weights
from orchestrator.errors import ArtifactError
from orchestrator.files import read_json

LIST = "ft-checkpoint.json"
SHARDED = ("pytorch_model_fsdp_*/.metadata", "pytorch_model_fsdp*.bin")
"""Weights in a form of FSDP that only training reads."""


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a training folder that were written to the end, oldest first."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        step = checkpoint.name.rpartition("-")[2]
        if step.isdigit() and not flaw(checkpoint):
            found.append((int(step), checkpoint))
    return [checkpoint for _, checkpoint in sorted(found)]


def flaw(checkpoint: Path) -> str:
    """What is missing or broken in a checkpoint; empty if it is whole."""
    step = checkpoint.name.rpartition("-")[2]
    state = read_json(checkpoint / "trainer_state.json")
    if not isinstance(state, dict):
        return "trainer_state.json, which is written last, is missing or cut short"
    if str(state.get("global_step")) != step:
        return f"trainer_state.json is of step {state.get('global_step')}"
    known = read_json(checkpoint / LIST)
    if isinstance(known, dict):
        return _not_as_listed(checkpoint, known)
    return _weights(checkpoint) or _cut_short(checkpoint) or _state(checkpoint)


def _not_as_listed(checkpoint: Path, known: dict[str, Any]) -> str:
    for name, size in known["files"].items():
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
    """What torch saves is a zip archive, whose directory is at its end."""
    for file in sorted(checkpoint.rglob("*")):
        if file.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(file):
            return f"{file.relative_to(checkpoint)} is cut short"
    return ""


def _state(checkpoint: Path) -> str:
    """The optimizer's and the random generators' state, of every rank; or none, if so asked for."""
    random = sorted(file.stem for file in checkpoint.glob("rng_state*.pth"))
    ranks = len(random)
    several = [f"rng_state_{rank}" for rank in range(max(ranks, 2))]
    if random not in ([], ["rng_state"], several):
        return "the state of a rank's random generators is missing"
    scheduler = (checkpoint / "scheduler.pt").is_file()
    latest = checkpoint / "latest"
    if latest.is_file():
        return _deepspeed(checkpoint / latest.read_text("utf-8").strip(), ranks)
    optimizer = any(checkpoint.glob("optimizer*"))
    if not (ranks or scheduler or optimizer or any(checkpoint.glob("global_step*"))):
        return ""  # weights only
    if not optimizer:
        return "the optimizer's state is missing"
    return "" if ranks else "the state of the random generators is missing"


def _deepspeed(folder: Path, ranks: int) -> str:
    if not folder.is_dir():
        return f"{folder.name}, which `latest` names, is missing"
    parts = len(list(folder.glob("*_optim_states.pt")))
    if not any(folder.glob("*_model_states.pt")) or parts < max(ranks, 1):
        return f"{folder.name} has the optimizer's state of {parts} of {max(ranks, 1)} ranks"
    return ""
