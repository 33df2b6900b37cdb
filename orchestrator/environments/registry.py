"""Which environment a backend uses.

One order, the strongest first:

1. the variable `FT_<BACKEND>_PREFIX` (`FT_AXOLOTL_PREFIX=/path`);
2. the prefix given to `ft backend use NAME --prefix PATH`;
3. the environment that `ft backend install NAME` made or confirmed last.

A stronger choice that does not work is an error. Falling back would train with other versions than
the user has asked for.
"""

import json
import os
from pathlib import Path
from typing import Any

from orchestrator import shell
from orchestrator.environments import home, locks
from orchestrator.environments.environment import STAMP, Environment, EnvironmentMissing
from orchestrator.errors import BackendEnvironmentError, LaunchError
from orchestrator.files import read_json

# Metadata only: importing a backend takes 6 to 20 seconds. The argument is the backend's name.
ASK = """
import importlib.metadata, json, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
names = [sys.argv[1], "torch"]
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in names}}))
"""


def variable(backend: str) -> str:
    """The name of the variable that chooses a backend's prefix."""
    return f"FT_{backend.upper()}_PREFIX"


def resolve(backend: str) -> Environment:
    """The environment in use.

    Raises:
        EnvironmentMissing: nothing is chosen, and ft has made none that is up to date.
        BackendEnvironmentError: what is chosen does not work.
        UsageError: there is no such backend.
    """
    locks.known(backend)
    if given := given_by_variable(backend):
        return from_prefix(backend, Path(given), chosen_by=variable(backend))
    choices = home.choices(backend)
    if prefix := choices.get("prefix"):
        return from_prefix(backend, Path(prefix), chosen_by="ft backend use")
    hint = f"ft backend install {backend}"
    if not (folder := choices.get("installed")):
        raise EnvironmentMissing(f"there is no environment for {backend} yet", hint=hint)
    environment = installed(home.environments_folder() / folder)
    if environment is None:
        raise EnvironmentMissing(f"the environment of {backend} is incomplete or gone", hint=hint)
    if not up_to_date(environment):
        raise EnvironmentMissing(
            f"the environment of {backend} was made from another lock than this ft has", hint=hint
        )
    return environment


def installed(folder: Path) -> Environment | None:
    """The environment that ft made in `folder`; None when it is not finished.

    The stamp is written last, so that everything is there when it is.
    """
    stamp = read_json(folder / STAMP)
    if not isinstance(stamp, dict) or stamp.get("prefix") != str(folder):
        return None  # also: a copy, whose programs point to the original
    python = folder / "bin" / "python"
    if not python.exists():
        return None  # the Python it was made with has been removed
    return Environment(stamp["backend"], folder, python, "ft", stamp["release"], stamp)


def up_to_date(environment: Environment) -> bool:
    """Whether ft's lock is still the one that the environment was made from."""
    if environment.name not in locks.RELEASES:
        return False
    lock = locks.load(environment.name, environment.stamp["locked_build"])
    return bool(environment.stamp["lock"] == lock.digest)


def all_installed(backend: str) -> list[Environment]:
    """Every finished environment of a backend that ft made, also outdated ones."""
    found = [
        installed(folder) for folder in sorted(home.environments_folder().glob(f"{backend}-*"))
    ]
    return [environment for environment in found if environment and environment.name == backend]


def from_prefix(backend: str, prefix: Path, *, chosen_by: str = "") -> Environment:
    """The environment at a conda or venv prefix of the user's.

    Raises:
        BackendEnvironmentError: there is no Python, or the backend is not installed for it.
    """
    prefix = prefix.expanduser().absolute()
    by = f" (chosen by {chosen_by})" if chosen_by else ""
    hint = "give the folder that holds bin/python"
    if chosen_by == variable(backend):
        hint += f", or unset {chosen_by}"
    elif chosen_by:
        hint += f"; `ft backend use {backend} --default` forgets it"
    python = prefix / "bin" / "python"
    if not python.exists():
        raise BackendEnvironmentError(f"there is no Python in {prefix}{by}", hint=hint)
    facts = ask(python, backend)
    if not facts[backend]:
        raise BackendEnvironmentError(
            f"{backend} is not installed in {prefix}{by}",
            hint=f"install {backend}=={locks.RELEASES[backend]} there, or choose another prefix",
        )
    return Environment(backend, prefix, python, "prefix", facts[backend], facts)


def ask(python: Path, backend: str) -> dict[str, Any]:
    """The versions of Python, torch and the backend that `python` sees; empty: not installed.

    Raises:
        BackendEnvironmentError: that Python does not run.
    """
    env = {**shell.base_environment(), "PATH": shell.system_path()}
    try:
        argv = [str(python), "-I", "-c", ASK, backend]
        code, answer, errors = shell.capture(argv, env=env, timeout=120)
    except LaunchError as error:
        raise BackendEnvironmentError(error.message) from error
    if code != 0:
        raise BackendEnvironmentError(
            f"{python} does not run",
            detail=errors.strip()[-2000:],
            hint="if its Python was removed or updated, make the environment again",
        )
    facts: dict[str, Any] = json.loads(answer)
    return facts


def given_by_variable(backend: str) -> str:
    """The prefix that the variable gives; empty when it gives none."""
    return os.environ.get(variable(backend), "")


def overview(backend: str) -> list[dict[str, Any]]:
    """Every environment known for a backend, the one in use first, for `ft backend list`."""
    try:
        used: Environment | None = resolve(backend)
        problem = ""
    except BackendEnvironmentError as error:
        used, problem = None, error.message
    rows = []
    if used is None:
        rows.append({"state": problem, "prefix": "", "origin": "", "release": "", "torch": ""})
    elif used.origin == "prefix":
        rows.append(_row(used, "in use"))
    for environment in all_installed(backend):
        if used and environment.prefix == used.prefix:
            rows.insert(0, _row(environment, "in use"))
        else:
            rows.append(_row(environment, "" if up_to_date(environment) else "outdated"))
    return [{"backend": backend, **row} for row in rows]


def _row(environment: Environment, state: str) -> dict[str, Any]:
    return {
        "state": state,
        "prefix": str(environment.prefix),
        "origin": environment.origin,
        "release": environment.release,
        "torch": environment.stamp.get("torch", ""),
    }
