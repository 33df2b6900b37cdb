"""The Python that a backend environment is made with.

A lock has wheels for certain Pythons only. ft's own is taken if it is one of them; else one that is
already on this machine. Nothing is downloaded behind the user's back.
"""

import os
import platform
import sys
from pathlib import Path

from orchestrator import shell
from orchestrator.environments import indexes, uv
from orchestrator.errors import BackendEnvironmentError, LaunchError


def find(versions: tuple[str, ...]) -> str:
    """A Python of one of `versions` (`3.11`), the first ones preferred, as `uv venv` takes it.

    Raises:
        BackendEnvironmentError: there is none, or this is no machine that the locks are for.
    """
    machine = (sys.platform, platform.machine(), platform.python_implementation())
    if machine != ("linux", "x86_64", "CPython"):
        raise BackendEnvironmentError(
            f"ft has no lock for {' '.join(machine)}, only for CPython on Linux x86_64",
            hint="make an environment yourself and give it to `ft backend use NAME --prefix PATH`",
        )
    for version in versions:
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            return sys.executable
        if found := _elsewhere(version):
            return found
    raise BackendEnvironmentError(
        f"this environment needs Python {' or '.join(versions)}, and there is none"
        f" (ft runs on {platform.python_version()})",
        hint=f"`{shell.shown(uv.command('python', 'install', versions[0]))}` fetches one; conda,"
        " pyenv or an environment module that puts it on PATH do as well",
    )


def _elsewhere(version: str) -> str:
    """A Python of that version that uv or pyenv knows; empty when neither does.

    pyenv is asked apart, since its commands on PATH refuse versions that are not switched on.
    """
    wanted = ("python", "find", version, "--no-python-downloads", "--no-project", "--system")
    env = uv.environment(indexes.sources())
    try:
        code, answer, _ = shell.capture(uv.command(*wanted), env=env, cwd=Path("/"), timeout=60)
    except LaunchError:
        code, answer = 1, ""
    if code == 0 and answer.strip():
        return answer.strip()
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/{version}.*/bin/python{version}"))
    return str(found[-1]) if found else ""
