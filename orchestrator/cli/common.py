"""Arguments and steps that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.clusters.site import Site
    from orchestrator.pipeline import Pipeline
    from orchestrator.recipe.load import Loaded
    from orchestrator.runs.record import Record
    from orchestrator.setup_run import Resolved


def complete_recipe(incomplete: str) -> list[str]:
    """Recipe names for the shell."""
    from orchestrator.recipe.sources import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name or file.", autocompletion=complete_recipe
    ),
]
RecipeOrRun = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|RUN", help="A recipe's name or file, or a run.",
        autocompletion=complete_recipe,
    ),
]  # fmt: skip
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: training.epochs=3."),
]
BackendName = Annotated[
    str | None, typer.Option("--backend", help="Use this backend: axolotl or llamafactory.")
]
SmokeFlag = Annotated[
    bool, typer.Option("--smoke", help="On a tiny random twin: minutes, no GPU, no network.")
]
OfflineFlag = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
NoInstall = Annotated[
    bool, typer.Option("--no-install", help="Fail instead of installing a missing backend.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def json_mode(enabled: bool) -> None:
    """Switch to the one JSON document."""
    if enabled:
        from orchestrator import ui

        ui.screen.json_mode = True


def load(name: str, overrides: list[str] | None, backend: str | None) -> "Loaded":
    """The recipe of that name with its overrides.

    Raises:
        RecipeError, UsageError: it cannot be used, or is not there.
    """
    from orchestrator.recipe.load import load as load_file
    from orchestrator.recipe.sources import find_recipe

    return load_file(find_recipe(name), overrides=overrides or (), backend=backend)


def resolve(
    loaded: "Loaded", *, smoke: bool, offline: bool, site: "Site | None" = None
) -> "Resolved":
    """Check and look everything up; warnings and smoke changes are shown."""
    from orchestrator import ui
    from orchestrator.setup_run import resolve as look_up

    with ui.reading() as progress:
        resolved = look_up(loaded, smoke_run=smoke, offline=offline, progress=progress, site=site)
    ui.show_findings(resolved.findings)
    if resolved.changes:
        ui.note("smoke: changed for a CPU and a tiny model", style="bold")
        for change in resolved.changes:
            ui.note(f"  {change}", style="dim")
    return resolved


def start(resolved: "Resolved", *, install: bool) -> "Pipeline":
    """A new run with its environment."""
    from orchestrator import ui
    from orchestrator.environments.environment import ensure
    from orchestrator.pipeline import Pipeline
    from orchestrator.run_folder import create

    environment = ensure(resolved.recipe.backend, install=install)
    planned, record = create(resolved, environment)
    ui.note(f"run: {record.layout.root}", style="bold")
    return Pipeline(planned, record, environment)


def reopen(run: Path, *, install: bool = True, offline: bool = False) -> "Pipeline":
    """An existing run, with the environment that its backend uses now.

    Raises:
        UsageError: the folder is no run.
    """
    import dataclasses

    from orchestrator import ui
    from orchestrator.environments.environment import ensure
    from orchestrator.errors import UsageError
    from orchestrator.files import write_atomic
    from orchestrator.pipeline import Pipeline
    from orchestrator.plan import Context, build
    from orchestrator.recipe.load import load as load_file
    from orchestrator.runs.lock import locked
    from orchestrator.runs.record import open_record

    record = open_record(run)
    if record.recovered:
        ui.note("run.json could not be read: its last version but one is used, with the markers")
    _take_over(record)
    if "context" not in record.document:
        raise UsageError(f"{run} was never started", hint="start a new run from the recipe")
    recipe = load_file(record.layout.recipe).recipe
    environment = ensure(recipe.backend, install=install)
    context = Context.from_dict(record.document["context"])
    context = dataclasses.replace(
        context,
        root=str(record.layout.root),
        python=str(environment.python),
        offline=context.offline or offline,
    )
    planned = build(recipe, context)
    with locked(record.layout):
        for file in planned.files:
            write_atomic(record.layout.rendered / file.name, file.text)
    ui.note(f"run: {record.layout.root}", style="bold")
    return Pipeline(planned, record, environment)


def _take_over(record: "Record") -> None:
    """Before a run that another host says to work on is resumed here.

    Raises:
        LaunchError: it is still at it.
    """
    from orchestrator import ui
    from orchestrator.errors import LaunchError
    from orchestrator.runs.lock import left_alone

    if not record.elsewhere:
        return
    ui.note(f"{record.elsewhere} worked on this run; waiting whether it still does ...")
    if not left_alone(record.layout):
        raise LaunchError(
            f"{record.layout.id} is at work on {record.elsewhere}",
            hint="wait for it, or end it there",
        )


def run_named(name: str) -> Path | None:
    """The run of that name or path, if there is one."""
    from orchestrator.runs.record import find_run

    return find_run(name, Path("runs"))


def outcome(pipeline: "Pipeline", *, as_json: bool) -> None:
    """What a walk left, for people and programs."""
    from orchestrator import ui

    document = pipeline.record.document
    if as_json:
        ui.emit({**document, "path": str(pipeline.record.layout.root)})
        return
    facts = document.get("stages", {}).get("export", {}).get("facts", {})
    if facts.get("path"):
        ui.say(f"export: {facts['path']}")
    else:
        ui.say(f"run: {pipeline.record.layout.root}")
