"""A backend's environment, and the variables a process in it gets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator import shell
from orchestrator.environments import torch_build
from orchestrator.environments.home import home
from orchestrator.errors import BackendEnvironmentError

STAMP = "ft-environment.json"


class EnvironmentMissing(BackendEnvironmentError):
    """ft has made no environment for this backend, or only one from a lock that has changed.

    It is the one failure that an installation cures; a prefix that is wrong is not.
    """


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a backend's Python is.

    `origin` is `ft` for one that ft made, whose `stamp` says from what, and `prefix` for one that
    the user gave. `release` is the release of the backend that is really in there.
    """

    name: str
    prefix: Path
    python: Path
    origin: Literal["ft", "prefix"]
    release: str
    stamp: dict[str, Any] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.prefix / "bin"


def process_environment(
    environment: Environment, *, offline: bool, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """All variables of a process in `environment`, built from the allow-list of `shell`.

    `HF_HUB_OFFLINE` is exactly `1`: axolotl 0.19.0 does not take `true` for it. Without `offline`
    the variables of offline mode are removed, so that a leftover in the user's shell cannot turn
    into a model that is "not found".
    """
    variables = {
        **shell.base_environment(),
        # First on PATH: axolotl starts `accelerate` by name.
        "PATH": f"{environment.bin}:{shell.system_path()}",
        "PYTHONNOUSERSITE": "1",  # packages in ~/.local outrank nothing in here
        "PYTHONUNBUFFERED": "1",  # events are followed while they happen
        "TOKENIZERS_PARALLELISM": "false",  # its threads and fork do not go together
        "AXOLOTL_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
    }
    kind = "CONDA_PREFIX" if (environment.prefix / "conda-meta").is_dir() else "VIRTUAL_ENV"
    variables[kind] = str(environment.prefix)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        variables.pop(name, None)
        if offline:
            variables[name] = "1"
    if environment.stamp.get("build") == "cpu" or not torch_build.gpu_visible():
        variables["DS_ACCELERATOR"] = "cpu"  # else deepspeed looks for CUDA and fails
    elif "PYTORCH_ALLOC_CONF" not in variables:
        # as both backends' own launchers do: less memory is lost between blocks
        variables.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    variables |= extra or {}
    built = variables.get("TORCH_EXTENSIONS_DIR") or str(home() / "torch-extensions")
    return {**variables, "TORCH_EXTENSIONS_DIR": f"{built}/{_place(environment)}"}


def _place(environment: Environment) -> str:
    """A folder of its own for what is built for an environment.

    In a shared one each backend would build the other's parts anew: the paths of its own headers
    are part of the build.
    """
    digest = hashlib.sha256(str(environment.prefix).encode()).hexdigest()[:8]
    return f"{environment.name}-{digest}"


def find(name: str) -> Environment:
    """The environment in use for a backend; `registry` says which one that is.

    Raises:
        BackendEnvironmentError: there is none, or the one chosen is not usable.
        UsageError: there is no such backend.
    """
    from orchestrator.environments import registry

    return registry.resolve(name)


def ensure(name: str, install: bool) -> Environment:
    """The environment in use; with `install`, made now if ft has not made it yet.

    Raises:
        BackendEnvironmentError: there is none, or it cannot be made.
        UsageError: there is no such backend.
    """
    try:
        return find(name)
    except EnvironmentMissing:
        if not install:
            raise
    from orchestrator.environments import install as installation

    return installation.install(name)
