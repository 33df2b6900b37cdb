"""Making a backend's environment with uv, so that nothing unfinished ever looks finished.

A virtual environment cannot be moved: the programs in it name its Python by an absolute path, and
`uv venv --relocatable` only promises to mend console scripts, which deepspeed's programs are not.
So it is made where it stays, and what makes it an environment of ours is its stamp, which is
written last. A folder without a stamp is a leftover; the next install clears it away.
"""

import datetime
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import orchestrator
from orchestrator import shell, ui
from orchestrator.environments import (
    home,
    indexes,
    interpreters,
    locks,
    registry,
    torch_build,
    uv,
    wheels,
)
from orchestrator.environments.environment import STAMP, Environment
from orchestrator.environments.exclusive import held
from orchestrator.environments.locks import Lock
from orchestrator.environments.torch_build import TorchBuild
from orchestrator.errors import BackendEnvironmentError
from orchestrator.files import write_json

STAMP_VERSION = 1
GIGABYTE = 10**9
MISMATCH = re.compile(r"[Hh]ash mismatch for `([A-Za-z0-9._-]+)==")
OUR_FOLDER = re.compile(r"-[0-9a-f]{12}$")
# Measured for CPU (axolotl takes 3.5 GB), the sum of the wheels for CUDA.
SPACE: dict[locks.Build, int] = {"cpu": 4 * GIGABYTE, "cuda": 12 * GIGABYTE}


def install(name: str, *, torch: str = "auto", reinstall: bool = False) -> Environment:
    """The environment of a backend, made now unless it is there already, and from now on in use.

    Raises:
        BackendEnvironmentError: it cannot be made.
        UsageError: there is no such backend, or no such build of torch.
    """
    locks.known(name)
    if torch == "auto" and (previous := _previous(name)):
        if not reinstall and registry.up_to_date(previous):
            return previous
        torch = previous.stamp["build"]
    build = _carried(torch, name) or torch_build.choose(torch, name)
    environment = make(locks.load(name, build.lock), build, reinstall=reinstall)
    home.choose(name, installed=environment.prefix.name)
    return environment


def _carried(torch: str, name: str) -> TorchBuild | None:
    """The build whose packages a bundle has brought, if it is the one that is asked for."""
    fits = [lock for lock in wheels.all_carried(name) if torch in ("auto", lock.build)]
    lock = fits[0] if fits else None
    return TorchBuild(lock.build, lock.build, "carried by a bundle") if lock else None


def _previous(name: str) -> Environment | None:
    """What was installed last, if `auto` means more of the same: not a CPU build beside a GPU."""
    folder = home.choices(name).get("installed")
    found = registry.installed(home.environments_folder() / folder) if folder else None
    if found and found.stamp["build"] == "cpu" and torch_build.nvidia_driver() is not None:
        return None
    return found


def make(lock: Lock, build: TorchBuild, *, reinstall: bool = False) -> Environment:
    """The environment for a lock and a build of torch; one at a time per folder.

    Raises:
        BackendEnvironmentError: it cannot be made.
    """
    parent = home.environments_folder()
    folder = parent / f"{lock.backend}-{lock.release}-{build.name}-{lock.digest}"
    with held(folder):
        if not reinstall and (found := registry.installed(folder)):
            return found
        _clear_leftovers(parent)
        delete(folder)
        _check_space(lock, parent)
        python = interpreters.find(lock.pythons)
        try:
            _fill(folder, lock, build, python)
        except BaseException:
            delete(folder)
            raise
        found = registry.installed(folder)
    if found is None:
        raise BackendEnvironmentError(f"{folder} was changed while it was made", hint="try again")
    return found


def delete(folder: Path) -> None:
    """Delete an environment, the stamp first: what is left if we are stopped is a leftover.

    Raises:
        BackendEnvironmentError: it cannot be deleted.
    """
    try:
        (folder / STAMP).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise BackendEnvironmentError(
            f"cannot delete {folder}: {error.strerror or error}",
            hint="is a process still running in it?",
        ) from error


def remove(name: str, *, everything: bool = False) -> list[Path]:
    """Delete the environment of a backend that ft installed last, or all of them with their logs.

    Raises:
        BackendEnvironmentError: there is none, or it cannot be deleted.
        UsageError: there is no such backend.
    """
    current = home.choices(locks.known(name)).get("installed")
    parent = home.environments_folder()
    folders = sorted(
        folder
        for folder in parent.glob(f"{name}-*")
        if folder.is_dir() and (everything or folder.name == current)
    )
    if not folders:
        raise BackendEnvironmentError(
            f"ft has no environment of {name} to remove",
            hint="`ft backend list` shows what is there",
        )
    for folder in folders:
        with held(folder):
            delete(folder)
            Path(f"{folder}.log").unlink(missing_ok=True)
    home.choose(name, installed=None)
    return folders


def _clear_leftovers(parent: Path) -> None:
    """Delete the folders of installs that were killed, unless somebody is at work on them."""
    for folder in parent.iterdir():
        ours = folder.is_dir() and OUR_FOLDER.search(folder.name)
        if ours and not (folder / STAMP).exists():
            with held(folder, wait=False) as free:
                if free:
                    delete(folder)


def _check_space(lock: Lock, parent: Path) -> None:
    """Refuse at once what would end in a full disk after minutes.

    Where uv's cache is on another disk than the environment, both need the room: the cache holds
    what is unpacked, and uv can only link within one disk.
    """
    cache = Path(os.environ.get("UV_CACHE_DIR") or "")
    if not os.environ.get("UV_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    while not cache.exists():
        cache = cache.parent
    for place, setting in ((parent, "FT_HOME"), (cache, "UV_CACHE_DIR")):
        free = shutil.disk_usage(place).free
        if free < SPACE[lock.build]:
            raise BackendEnvironmentError(
                f"{place} has {free / GIGABYTE:.1f} GB left, the environment of {lock.backend}"
                f" ({lock.build}) needs {SPACE[lock.build] / GIGABYTE:.0f} GB",
                hint=f"make room, or set {setting} to a folder on a larger disk",
            )


def _fill(folder: Path, lock: Lock, build: TorchBuild, python: str) -> None:
    """Make the environment, check it and stamp it."""
    sources = indexes.sources() if build.replaced else wheels.sources(lock)
    for line in sources.ignored:
        ui.note(f"note: pip's {line}")
    log = Path(f"{folder}.log")
    log.unlink(missing_ok=True)
    title = f"{lock.backend} {lock.release} ({build.name})"
    ui.note(f"installing {title}: torch {build.name}, {build.reason}")

    def uv_runs(*arguments: str, extras: bool = True) -> None:
        env = uv.environment(sources)
        if not extras:
            env = {name: value for name, value in env.items() if name not in indexes.EXTRAS}
        _run_uv(arguments, env=env, log=log, folder=folder, title=title)

    uv_runs("venv", "--no-project", "--python", python, "--prompt", lock.backend, str(folder))
    target = ("pip", "install", "--python", str(folder / "bin" / "python"), *sources.flags)
    backend = ("--torch-backend", build.backend) if build.backend else ()
    # The lock is complete, so nothing needs resolving. For llamafactory nothing may be: the lock
    # leaves torchvision and torchaudio out, which a resolver would bring back.
    hashed = (*target, "--no-deps", "--require-hashes")

    def uv_installs(*arguments: str) -> None:
        """Install from the lock, and what an extra index has wrong from the default one.

        Of one version uv takes the file of the first index that has any, extra indexes first, and
        gives up if that is not a file of the lock. pip would go on to the other indexes.
        """
        mended: set[str] = set()
        while True:
            try:
                return uv_runs(*hashed, *arguments)
            except BackendEnvironmentError as error:
                match = MISMATCH.search(error.detail)
                name = match[1].lower() if match else ""
                has_extras = not uv.environment(sources).keys().isdisjoint(indexes.EXTRAS)
                if name in mended or name not in lock.blocks or not has_extras:
                    raise
                mended.add(name)
                ui.note(f"note: {name} as the lock has it is not what an extra index offers first")
                one = folder / "requirement.txt"
                one.write_text(lock.blocks[name], encoding="utf-8")
                uv_runs(*hashed, "--requirement", str(one), extras=False)
                one.unlink()

    if build.replaced:
        rest = folder / "requirements.txt"
        rest.write_text(lock.without_torch(), encoding="utf-8")
        # First what is most likely not to be had; the rest takes minutes.
        uv_runs(*target, *backend, "--constraint", str(rest), *lock.torch_requirements())
        uv_installs("--requirement", str(rest))
    else:
        uv_installs(*backend, "--requirement", str(lock.path))

    facts = registry.ask(folder / "bin" / "python", lock.backend)
    if facts[lock.backend] != lock.release:
        raise BackendEnvironmentError(
            f"{lock.backend} {facts[lock.backend] or 'is not'} in the environment made for"
            f" {lock.release}",
            hint=f"see {log}",
        )
    write_json(
        folder / STAMP,
        {
            "version": STAMP_VERSION,
            "backend": lock.backend,
            "release": lock.release,
            "build": build.name,
            "locked_build": lock.build,
            "lock": lock.digest,
            "prefix": str(folder),
            "python": facts["python"],
            "torch": facts["torch"],
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "ft": orchestrator.__version__,
        },
    )


def _run_uv(
    arguments: tuple[str, ...], *, env: dict[str, str], log: Path, folder: Path, title: str
) -> None:
    """Run uv to its end, showing what it does.

    It works in `/`, where no project's `pyproject.toml` can change what it does.

    Raises:
        BackendEnvironmentError: uv failed; says the likely cause and the last lines.
    """
    argv = uv.command(*arguments)
    start = log.stat().st_size if log.exists() else 0
    process = shell.start(argv, env=env, cwd=Path("/"), log=log)
    with ui.progress(transient=True) as bar:
        task = bar.add_task(title, total=None, detail="")
        watch = _watcher(log, start, folder)

        def on_poll() -> None:
            done, total, detail = watch()
            bar.update(task, completed=done, total=total, detail=detail)

        ended = shell.follow(process, log=log, on_poll=on_poll)
    if ended.exit_code != 0:
        output = indexes.redacted(ended.tail)
        output = output[max(0, output.rfind("\nerror: ")) :].strip()
        meaning, remedy = uv.cause(output)
        raise BackendEnvironmentError(
            f"cannot install {title}: {meaning}",
            detail="\n".join(output.splitlines()[:20]),
            hint=f"{remedy}; everything uv said is in {log}",
        )


def _watcher(log: Path, start: int, folder: Path) -> Callable[[], tuple[int, int | None, str]]:
    """A function that reads what is new in the log and says how far uv is.

    Until all packages are there, the larger ones count, since uv names no others; then those that
    are in the environment.
    """
    seen = uv.Progress()
    position = start

    def watch() -> tuple[int, int | None, str]:
        nonlocal position
        with log.open("rb") as handle:
            handle.seek(position)
            new = handle.read()
        position += len(new)
        seen.feed(new.decode("utf-8", "replace"))
        if there := uv.installed_packages(folder.glob("lib/python*/site-packages")):
            return there, seen.packages or None, "installing"
        return len(seen.done), len(seen.announced) or None, seen.line()

    return watch
