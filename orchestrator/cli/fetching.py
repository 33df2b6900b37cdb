"""`ft fetch`: have model and data here, in a cluster's scratch folder, or in a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.cluster import complete_cluster
from orchestrator.cli.common import (
    AsJson,
    BackendName,
    NoInstall,
    OfflineFlag,
    Overrides,
    SmokeFlag,
    complete_recipe,
    json_mode,
    load,
    resolve,
    run_named,
)

if TYPE_CHECKING:
    from orchestrator.clusters.site import Site
    from orchestrator.hub.cache import Snapshot
    from orchestrator.setup_run import Resolved

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE|RUN]", help="A recipe's name or file, or a run.",
        autocompletion=complete_recipe,
    ),
]  # fmt: skip
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="CLUSTER", help="Into the scratch folder of this cluster.",
        autocompletion=complete_cluster,
    ),
]  # fmt: skip


Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="Gather everything here, for another site."),
]
FromBundle = Annotated[
    Path | None,
    typer.Option("--from-bundle", metavar="DIR", help="Check a bundle and put it in place."),
]
NoWheels = Annotated[
    bool, typer.Option("--no-wheels", help="With --bundle: without the backend's packages.")
]
Torch = Annotated[
    str, typer.Option("--torch", help="With --bundle: build of torch, auto, cpu or cuda.")
]


def fetch(
    target: Target = None,
    overrides: Overrides = None,
    backend: BackendName = None,
    smoke: SmokeFlag = False,
    on: On = None,
    bundle: Bundle = None,
    from_bundle: FromBundle = None,
    no_wheels: NoWheels = False,
    torch: Torch = "auto",
    no_install: NoInstall = False,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Download the model and the data, each file checked by size and hash."""
    from orchestrator.cli import bundling
    from orchestrator.cli.stages import walk
    from orchestrator.errors import UsageError

    json_mode(as_json)
    if from_bundle:
        if target or bundle or overrides or backend or smoke or no_wheels:
            raise UsageError("--from-bundle takes the recipe of the bundle", hint="leave the rest")
        bundling.unpack(from_bundle, on, as_json=as_json)
        return
    if target is None:
        raise UsageError("name a recipe or a run", hint="ft fetch RECIPE")
    if on is None and bundle is None:
        walk("fetch", target, overrides, backend, smoke=smoke, install=not no_install,
             offline=offline, as_json=as_json)  # fmt: skip
        return
    if run_named(target) or smoke or (on and bundle):
        raise UsageError(
            "--on and --bundle are for a recipe, and exclude each other and --smoke",
            hint="ft fetch RECIPE --on CLUSTER, or ft fetch RECIPE --bundle DIR",
        )
    if bundle:
        loaded = load(target, overrides, backend)
        bundling.pack(
            loaded, bundle, wheels=not no_wheels, torch=torch, offline=offline, as_json=as_json
        )
    elif on:
        _to_cluster(on, target, overrides, backend, offline=offline, as_json=as_json)


def _to_cluster(
    on: str,
    target: str,
    overrides: list[str] | None,
    backend: str | None,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    from orchestrator import ui
    from orchestrator.cli.submitting import load_on, site
    from orchestrator.fetching import summary
    from orchestrator.submission import enter

    where = site(on, None, None, False, False)
    assert where is not None
    loaded = load_on(where, target, overrides, backend)
    enter(where, loaded.recipe.backend, activate=False)
    resolved = resolve(loaded, smoke=False, offline=offline, site=where)
    found = fetch_for(resolved, offline=offline)
    show_fetched(found, summary(found), as_json=as_json)
    ui.note(f"then: ft recipe run {target} --on {on}")


def fetch_for(resolved: "Resolved", *, offline: bool) -> "list[Snapshot]":
    """Have in the cache what the recipe names by hub id."""
    from orchestrator import ui
    from orchestrator.fetching import fetch_needed, places
    from orchestrator.setup_run import planned_only

    known = places(planned_only(resolved).context)
    return fetch_needed(resolved.recipe, known, offline=offline, say=ui.note)


def fetched_and_pinned(resolved: "Resolved", where: "Site", *, offline: bool) -> "Resolved":
    """Fetch on this node, and name what was fetched by its place, for nodes without a network."""
    from orchestrator.setup_run import pinned

    return pinned(resolved, where) if fetch_for(resolved, offline=offline) else resolved


def show_fetched(found: "list[Snapshot]", summary: str, *, as_json: bool) -> None:
    """What was fetched, for people and programs."""
    from orchestrator import ui

    if as_json:
        ui.emit({"fetched": [snapshot.as_dict() for snapshot in found]})
        return
    for snapshot in found:
        size = f"{snapshot.bytes / 1e9:.2f} GB" if snapshot.files else "fetched by another program"
        ui.say(f"{snapshot.repository.name}: {len(snapshot.files)} files, {size}")
        ui.say(f"  {snapshot.folder}")
    ui.say(summary)


def register(app: typer.Typer) -> None:
    """Add the command to `ft`."""
    app.command()(fetch)
