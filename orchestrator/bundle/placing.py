"""Unpacking a bundle: checked, then each part put where ft and the backends look for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.bundle import manifest
from orchestrator.bundle.manifest import Carried, Manifest, Wheels
from orchestrator.environments import locks, wheels
from orchestrator.errors import BackendEnvironmentError, LaunchError
from orchestrator.hub import cache
from orchestrator.hub.cache import RemoteFile, Repository, Snapshot


@dataclass(frozen=True, slots=True)
class Placed:
    """What a bundle has brought; `packages` are those that an environment can be made of."""

    manifest: Manifest
    recipe: Path
    snapshots: tuple[Snapshot, ...]
    packages: Path | None


def place(folder: Path, say: Callable[[str], None], progress: manifest.Progress) -> Placed:
    """Check a bundle and put repositories into the hub's cache and packages into FT_HOME.

    Local data stays in the bundle, whose recipe names it there.

    Raises:
        UsageError: there is no bundle.
        BackendEnvironmentError: it is not finished, damaged, or for another ft.
        LaunchError: a folder cannot be written.
    """
    whole = manifest.read(folder)
    say(f"check {len(whole.files)} files, {whole.bytes / 1e9:.2f} GB")
    manifest.check(folder, whole, progress)
    try:
        snapshots = tuple(_repository(folder, carried) for carried in whole.repositories)
        packages = _packages(folder, whole.wheels) if whole.wheels else None
    except OSError as error:
        raise LaunchError(
            f"cannot unpack the bundle: {error.filename}: {error.strerror or error}",
            hint="make room, or set HF_HOME and FT_HOME to a larger disk; then again: it goes on",
        ) from error
    return Placed(whole, folder / "recipe.yaml", snapshots, packages)


def _repository(folder: Path, carried: Carried) -> Snapshot:
    repository = Repository(carried.kind, carried.name, carried.revision, tuple(carried.wanted))
    files = tuple(RemoteFile(f.path, f.size, f.digest) for f in carried.files)
    snapshot = Snapshot(repository, carried.commit, folder, files)
    return cache.place(snapshot, folder / carried.folder)


def _packages(folder: Path, carried: Wheels) -> Path:
    """Put the packages where an installation looks.

    Raises:
        BackendEnvironmentError: they are those of another lock than this ft has.
    """
    lock = locks.load(carried.backend, carried.build)
    if lock.digest != carried.digest:
        raise BackendEnvironmentError(
            f"the bundle's packages of {carried.backend} are those of another ft's lock",
            hint="make the bundle with this version of ft, or bring that one here",
        )
    target = wheels.folder_of(lock)
    for source in sorted((folder / carried.folder).iterdir()):
        known = target / source.name
        if not known.is_file() or known.stat().st_size != source.stat().st_size:
            cache.put(source, known)
    wheels.complete(lock)
    return target
