"""`$FT_HOME`: the folder that holds what ft keeps between runs.

config.json                       what `ft backend use` and `ft backend install` chose
environments/<folder>/            an environment; finished when ft-environment.json is in it
environments/<folder>.lock        held by the one process that makes or removes it
environments/<folder>.log         what uv said
"""

import os
from pathlib import Path
from typing import Any

from orchestrator.environments.exclusive import held
from orchestrator.errors import BackendEnvironmentError
from orchestrator.files import read_json, write_json

CONFIG_VERSION = 1


def home() -> Path:
    """`$FT_HOME`, or the place where this system keeps the data of a user's programs.

    Raises:
        BackendEnvironmentError: there is neither.
    """
    if given := os.environ.get("FT_HOME"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_dir

    try:
        return Path(user_data_dir("ft"))
    except RuntimeError as error:
        raise BackendEnvironmentError(
            f"user {os.getuid()} has no home folder here, and HOME is not set",
            hint="set HOME, or FT_HOME, to a folder that you may write to",
        ) from error


def environments_folder() -> Path:
    """The parent of all environments that ft made."""
    return home() / "environments"


def choices(backend: str) -> dict[str, Any]:
    """What is recorded for a backend: `prefix` (by `use`) and `installed` (a folder's name)."""
    found = _read().get("backends", {}).get(backend, {})
    return dict(found) if isinstance(found, dict) else {}


def choose(backend: str, **values: str | None) -> None:
    """Record choices for a backend; None forgets one."""
    path = home() / "config.json"
    with held(path):  # two backends may be installed at the same time
        config = _read()
        entry = config.setdefault("backends", {}).setdefault(backend, {})
        for name, value in values.items():
            entry.pop(name, None)
            if value is not None:
                entry[name] = value
        write_json(path, {**config, "version": CONFIG_VERSION})


def _read() -> dict[str, Any]:
    """The configuration; empty when there is none.

    Raises:
        BackendEnvironmentError: there is a file, but not one of ours. Going on without it would
            silently use another environment than the recorded one.
    """
    path = home() / "config.json"
    config = read_json(path)
    if config is None and not path.exists():
        return {}
    if not isinstance(config, dict) or config.get("version") != CONFIG_VERSION:
        raise BackendEnvironmentError(
            f"cannot read {path}", hint="correct it, or delete it and choose again"
        )
    return config
