"""`ft fetch --bundle` and `--from-bundle`: everything for a site without any network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.common import resolve

if TYPE_CHECKING:
    from orchestrator.bundle.manifest import Progress
    from orchestrator.environments.locks import Lock
    from orchestrator.recipe.load import Loaded


def pack(
    loaded: "Loaded", folder: Path, *, wheels: bool, torch: str, offline: bool, as_json: bool
) -> None:
    """Make a bundle of a recipe."""
    from orchestrator import ui
    from orchestrator.bundle.making import make
    from orchestrator.setup_run import planned_only

    lock = _lock(loaded.recipe.backend, torch) if wheels else None
    resolved = resolve(loaded, smoke=False, offline=offline)
    with _hashing() as progress:
        made = make(
            loaded.recipe, loaded.file.resolve().parent, planned_only(resolved).context,
            folder.absolute(),
            lock=lock, offline=offline, say=ui.note, progress=progress,
        )  # fmt: skip
    if as_json:
        document = made.model_dump(mode="json", exclude={"files"})
        ui.emit({**document, "path": str(folder.absolute()), "files": len(made.files),
                 "bytes": made.bytes})  # fmt: skip
        return
    packed = f", packages of {made.backend} ({made.wheels.build})" if made.wheels else ""
    ui.say(f"{folder}: {len(made.files)} files, {made.bytes / 1e9:.2f} GB{packed}")
    ui.note(f"carry it over (rsync -a, tar), then there: ft fetch --from-bundle {folder.name}")


def _lock(backend: str, torch: str) -> "Lock":
    """The lock whose packages are carried.

    Raises:
        UsageError: that build of torch is in no lock.
    """
    from orchestrator.environments import locks, torch_build
    from orchestrator.errors import UsageError

    build = torch_build.choose(torch, backend)
    if build.replaced:
        raise UsageError(
            f"only the builds of ft's locks can be carried, {build.name} is in none",
            hint="--torch cuda or --torch cpu, whichever the other site's nodes have",
        )
    return locks.load(backend, build.lock)


def unpack(folder: Path, on: str | None, *, as_json: bool) -> None:
    """Check a bundle, put it in place, and say what to do with it."""
    from orchestrator import ui
    from orchestrator.bundle import manifest
    from orchestrator.bundle.placing import place
    from orchestrator.cli.submitting import site
    from orchestrator.submission import enter

    where = site(on, None, None, False, False)
    if where:
        enter(where, manifest.read(folder).backend, activate=False)
    with _hashing() as progress:
        placed = place(folder.absolute(), ui.note, progress)
    whole, carried = placed.manifest, placed.manifest.wheels
    steps = [f"ft backend install {whole.backend} --torch {carried.build}"] if carried else []
    there = f"--on {on} " if on else ""
    steps.append(f"ft recipe run {folder / 'recipe.yaml'} {there}--offline")
    if as_json:
        ui.emit({
            "recipe": str(placed.recipe), "backend": whole.backend, "next": steps,
            "fetched": [snapshot.as_dict() for snapshot in placed.snapshots],
            "packages": str(placed.packages) if placed.packages else None,
        })  # fmt: skip
        return
    for snapshot in placed.snapshots:
        ui.say(f"{snapshot.repository.name}: {snapshot.folder}")
    if placed.packages:
        ui.say(f"packages of {whole.backend}: {placed.packages}")
    for step in steps:
        ui.say(f"then: {step}")


@contextmanager
def _hashing() -> "Iterator[Progress]":
    """A bar over the bytes that are hashed."""
    from orchestrator import ui

    with ui.progress(transient=True) as bar:
        task = bar.add_task("sha256", total=None, detail="")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done >> 20, total=total >> 20, detail="MiB")

        yield advance
