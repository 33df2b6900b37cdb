"""Leaving out imports that a task cannot need.

Imports are nearly all of a short task's time, and some of the largest are optional extras that
other libraries pick up only because they are installed. A ``None`` in ``sys.modules`` makes Python
say that a package is not there, and those libraries then take their path without it.

This changes the process for good (libraries remember what was available), so only a process that
runs one task and ends may do it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from .request import Request

# Never needed. requests picks chardet and its large tables over charset_normalizer if both are
# installed; transformers imports scikit-learn for one threshold of assisted generation.
NEVER = ("chardet", "sklearn")

# Needed only by a training whose configuration speaks of them. (axolotl 0.19.0 imports wandb in
# ``utils.callbacks`` whether or not it is used.)
TRACKERS: dict[str, tuple[str, ...]] = {
    "wandb": ("wandb",),
    "matplotlib": ("plot",),
}

# Likewise, but a published base model may be quantized without its name saying so. That model runs
# on a GPU, where a few seconds do not matter, so these are left out only where there is none.
HEAVY: dict[str, tuple[str, ...]] = {
    "deepspeed": ("deepspeed",),
    "bitsandbytes": ("bit", "bnb", "quant", "nf4", "paged", "ademamix", "lion"),
    "torchao": ("torchao", "ao_", "fp8", "fp4", "fp6", "int4", "int8", "qat", "quant"),
}

LIGHT_TASKS = ("preprocess", "keys", "describe_model")
NVIDIA = Path("/proc/driver/nvidia/version")


def has_gpu() -> bool:
    """Is there an NVIDIA driver? Asking torch would import it."""
    return NVIDIA.exists()


def unmentioned(packages: dict[str, tuple[str, ...]], config: str) -> Iterator[str]:
    """The packages that a configuration does not speak of."""
    for name, words in packages.items():
        if not any(word in config for word in words):
            yield name


def needless(request: Request) -> list[str]:
    """The packages that this request cannot need."""
    task = request.get("task")
    if task in LIGHT_TASKS:
        return [*NEVER, *TRACKERS, *HEAVY]
    if task not in ("train", "merge"):
        return list(NEVER) if task in ("validate", "validate_all", "doctor") else []
    config = Path(str(request.get("config")))
    text = config.read_text(encoding="utf-8").lower() if config.is_file() else ""
    trackers = set(TRACKERS if task == "merge" else unmentioned(TRACKERS, text))
    if request.get("backend") == "axolotl":
        trackers.discard("wandb")
    heavy = () if has_gpu() else unmentioned(HEAVY, text)
    return [*NEVER, *trackers, *heavy]


def leave_out(request: Request) -> None:
    """Make the packages that this request cannot need look absent."""
    for name in needless(request):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
