"""The packages of a lock as files, for a site without any package source.

pip downloads them, since uv cannot, with the Python that the environment will be made with: its
tags decide which files fit. Hashes are required here, and again at the installation.

A bundle brings them to `$FT_HOME/wheels/<lock>/`; with them there, nothing else is asked.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator import shell
from orchestrator.environments import home, indexes, interpreters, uv
from orchestrator.environments.locks import Build, Lock, load
from orchestrator.errors import BackendEnvironmentError
from orchestrator.files import read_json, write_json

HOURS = 4 * 3600.0
COMPLETE = "ft-wheels.json"
BUILD_TOOLS = ("setuptools", "wheel")
"""What builds the few packages that exist as source only."""


def name_of(lock: Lock) -> str:
    """The folder of a lock's packages."""
    return f"{lock.backend}-{lock.release}-{lock.build}-{lock.digest}"


def gather(lock: Lock, folder: Path, say: Callable[[str], None]) -> None:
    """Download the packages of a lock; those that are there already are kept.

    Raises:
        BackendEnvironmentError: a package cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python = interpreters.find(lock.pythons)
    say(f"download the packages of {lock.backend} ({lock.build} build of torch)")
    with tempfile.TemporaryDirectory(prefix="ft-pip-") as scratch:
        pip = [*_pip(python, Path(scratch)), "--disable-pip-version-check"]
        into = ["download", "--quiet", "--dest", str(folder)]
        locked = ["--no-deps", "--require-hashes", "--requirement", str(lock.path)]
        _run([*pip, *into, *locked], lock)
        if any(folder.glob("*.tar.gz")) or any(folder.glob("*.zip")):
            _run([*pip, *into, "--only-binary=:all:", *BUILD_TOOLS], lock)


def _pip(python: str, scratch: Path) -> list[str]:
    """A pip of that Python: its own, else one in an environment that uv makes for it."""
    own = [python, "-m", "pip"]
    if _capture([*own, "--version"])[0] == 0:
        return own
    made = uv.command("venv", "--no-project", "--seed", "--python", python, str(scratch / "pip"))
    sources = indexes.sources()
    code, _, error = shell.capture(made, env=uv.environment(sources), cwd=Path("/"), timeout=HOURS)
    if code:
        raise BackendEnvironmentError(
            f"there is no pip for {python}, and uv cannot bring one",
            detail=indexes.redacted(error)[-2000:],
            hint=f"{python} -m ensurepip",
        )
    return [str(scratch / "pip" / "bin" / "python"), "-m", "pip"]


def _capture(argv: list[str]) -> tuple[int, str, str]:
    """Run pip with its own configuration, which says where packages come from."""
    own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    env = {**shell.base_environment(), **own, "PATH": shell.system_path()}
    return shell.capture(argv, env=env, cwd=Path("/"), timeout=HOURS)


def _run(argv: list[str], lock: Lock) -> None:
    code, _, error = _capture(argv)
    if code:
        said = indexes.redacted(error).strip()
        meaning, remedy = uv.cause(said)
        meaning = "pip gave up" if meaning == "uv gave up" else meaning
        raise BackendEnvironmentError(
            f"the packages of {lock.backend} cannot be downloaded: {meaning}",
            detail="\n".join(said.splitlines()[-15:]),
            hint=f"{remedy}; what is there is not downloaded again. --no-wheels leaves them out",
        )


def folder_of(lock: Lock) -> Path:
    """Where the packages of a lock are kept, if a bundle has brought them."""
    return home.home() / "wheels" / name_of(lock)


def complete(lock: Lock) -> None:
    """Remember that all of them are there."""
    write_json(folder_of(lock) / COMPLETE, _stamp(lock))


def _stamp(lock: Lock) -> dict[str, str]:
    return {"build": lock.build, "lock": lock.digest}


def carried(lock: Lock) -> bool:
    """Whether all packages of a lock are here."""
    return bool(read_json(folder_of(lock) / COMPLETE) == _stamp(lock))


def all_carried(backend: str) -> list[Lock]:
    """The locks of a backend whose packages are here, the CUDA build's first."""
    stamps = (home.home() / "wheels").glob(f"{backend}-*/{COMPLETE}")
    builds = {str((read_json(stamp) or {}).get("build")) for stamp in stamps}
    order: tuple[Build, ...] = ("cuda", "cpu")
    found = [load(backend, build) for build in order if build in builds]
    return [lock for lock in found if carried(lock)]


def sources(lock: Lock) -> indexes.Sources:
    """What uv is told: the carried packages and nothing else; else pip's configuration."""
    if carried(lock):
        return indexes.Sources({}, ("--no-index", "--find-links", str(folder_of(lock))))
    return indexes.sources()
