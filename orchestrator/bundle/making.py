"""Making a bundle: a recipe's model, data and packages gathered into one folder.

Each file is there whole or not at all, and one that is there is not gathered again, so that a
making that was broken off goes on.
"""

import datetime
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator import __version__, yaml_out
from orchestrator.bundle import manifest
from orchestrator.bundle.manifest import Carried, CarriedFile, Manifest, Wheels
from orchestrator.environments import uv, wheels
from orchestrator.environments.locks import Lock
from orchestrator.errors import LaunchError
from orchestrator.fetching import fetch_needed, places
from orchestrator.files import write_atomic
from orchestrator.hub.cache import DIGEST, RemoteFile, Snapshot, put
from orchestrator.plan import Context
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import local_path

Say = Callable[[str], None]


def make(
    recipe: Recipe,
    beside: Path,
    context: Context,
    folder: Path,
    *,
    lock: Lock | None,
    offline: bool,
    say: Say,
    progress: manifest.Progress,
) -> Manifest:
    """Gather all that a run of the recipe needs; without a lock no packages.

    `beside` is the recipe's folder, from which its paths count.

    Raises:
        BackendEnvironmentError: something cannot be had.
        LaunchError: the folder cannot be written.
        UsageError: it holds something else.
    """
    manifest.begin(folder)
    found = fetch_needed(recipe, places(context), offline=offline, say=say)
    try:
        repositories = [_repository(snapshot, folder) for snapshot in found]
        document = recipe.model_dump(mode="json", exclude_unset=True)
        for change in _local_files(recipe, beside, context, folder):
            _set(document, *change)
        write_atomic(folder / "recipe.yaml", yaml_out.dump(document))
        packed = _packages(lock, folder, say) if lock else None
        say("hash every file")
        whole = Manifest(
            version=1,
            ft=__version__,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            recipe=recipe.name,
            backend=recipe.backend,
            repositories=repositories,
            wheels=packed,
            files=manifest.listed(folder, progress),
        )
    except OSError as error:
        raise LaunchError(
            f"cannot write the bundle {folder}: {error.strerror or error}",
            hint="make room, then run the same command again: it goes on",
        ) from error
    manifest.finish(folder, whole)
    return whole


def _repository(snapshot: Snapshot, folder: Path) -> Carried:
    repository = snapshot.repository
    name = f"repositories/{repository.kind}s--{repository.name.replace('/', '--')}"
    files = snapshot.files or tuple(_stated(snapshot.folder))
    for file in files:
        target = folder / name / file.path
        if not target.is_file() or target.stat().st_size != file.size:
            put(snapshot.folder / file.path, target)
    return Carried(
        kind=repository.kind,
        name=repository.name,
        revision=repository.revision,
        wanted=list(repository.files),
        commit=snapshot.commit,
        folder=name,
        files=[CarriedFile(path=f.path, size=f.size, digest=f.digest) for f in files],
    )


def _packages(lock: Lock, folder: Path, say: Say) -> Wheels:
    name = f"wheels/{wheels.name_of(lock)}"
    wheels.gather(lock, folder / name, say)
    put(Path(uv.command()[0]), folder / "bin" / "uv")
    return Wheels(folder=name, backend=lock.backend, build=lock.build, digest=lock.digest)


def _stated(folder: Path) -> Iterator[RemoteFile]:
    """The files of a snapshot that another program has fetched.

    A blob's name is its digest, where the cache has blobs: without links it has none.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, blob = path.relative_to(folder).as_posix(), path.resolve().name
            digest = blob if DIGEST.fullmatch(blob) else manifest.sha256(path)
            yield RemoteFile(name, path.stat().st_size, digest)


def _local_files(
    recipe: Recipe, beside: Path, context: Context, folder: Path
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Copy what the recipe names by path; gives each field with its place in the bundle."""
    known = places(context)
    if known.base:
        yield ("model", "base"), _copied(known.base, folder, "model")
    for group, paths in (
        ("sources", known.sources), ("validation_sources", known.validation_sources),
    ):  # fmt: skip
        for index, path in enumerate(paths):
            if path:
                name = f"data/{group}-{index}-{Path(path).name}"
                yield ("data", group, index, "path"), _copied(path, folder, name)
    if context.template:
        name = f"files/{Path(context.template).name}"
        yield ("data", "chat_template"), _copied(context.template, folder, name)
    own = recipe.distributed.deepspeed_file
    if own and (file := local_path(own, beside)):
        yield ("distributed", "deepspeed_file"), _copied(str(file), folder, f"files/{file.name}")
    runs = Path(recipe.output.directory).name
    yield ("output", "directory"), "runs" if runs in ("", "..") else runs


def _copied(source: str, folder: Path, name: str) -> str:
    """A copy, not a link: what is edited later must not change in the bundle."""
    target, partial = folder / name, folder / f"{name}.partial"
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in (partial, target):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    if Path(source).is_dir():
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    partial.replace(target)
    return f"./{name}"


def _set(document: Any, field: tuple[str | int, ...], value: str) -> None:
    *parents, last = field
    for part in parents:
        document = document.setdefault(part, {}) if isinstance(document, dict) else document[part]
    document[last] = value
