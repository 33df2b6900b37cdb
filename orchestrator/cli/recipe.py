"""`ft recipe`: list, show, write, check, render, plan and run recipes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import creating, diffing, submitting, validating
from orchestrator.cli.common import (
    AsJson,
    BackendName,
    NoInstall,
    OfflineFlag,
    Overrides,
    RecipeName,
    SmokeFlag,
    complete_recipe,
    json_mode,
    load,
    outcome,
    reopen,
    resolve,
    run_named,
    start,
)
from orchestrator.cli.importing import import_recipes

if TYPE_CHECKING:
    from orchestrator.clusters.site import Site
    from orchestrator.runs.record import Record

app = typer.Typer(
    rich_markup_mode=None, help="List, check, render and run recipes.", no_args_is_help=True
)
app.command()(creating.new)
app.command()(validating.validate)
app.command()(diffing.diff)


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List your ./recipes and the shipped ones."""
    from orchestrator import ui
    from orchestrator.findings import RecipeError
    from orchestrator.recipe.load import load as load_file
    from orchestrator.recipe.sources import recipe_names

    json_mode(as_json)
    entries = []
    for name, file in recipe_names().items():
        try:
            recipe = load_file(file).recipe
            about = {"backend": recipe.backend, "description": recipe.description}
        except RecipeError as error:
            about = {"backend": "", "description": f"broken: {error.message}"}
        entries.append({"name": name, **about, "file": str(file)})
    if as_json:
        ui.emit(entries)
        return
    ui.table(
        ("recipe", "backend", "description"),
        [(e["name"], e["backend"], e["description"]) for e in entries],
    )


@app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    backend: BackendName = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With overrides applied and defaults written out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe."""
    from orchestrator import ui
    from orchestrator.recipe.sources import find_recipe
    from orchestrator.yaml_out import dump

    json_mode(as_json)
    if not (resolved or as_json or overrides or backend):
        ui.raw(find_recipe(recipe).read_text("utf-8"))
        return
    document = load(recipe, overrides, backend).recipe.model_dump(mode="json")
    if as_json:
        ui.emit(document)
    else:
        ui.raw(dump(document))


@app.command()
def render(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", help="Folder for the backend's files.")],
    overrides: Overrides = None,
    backend: BackendName = None,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Leave out what the backend cannot express."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the backend's files only."""
    from orchestrator import ui
    from orchestrator.files import write_atomic
    from orchestrator.standalone import standalone

    json_mode(as_json)
    written_for = load(recipe, overrides, None).recipe.backend if backend else None
    rendered, findings = standalone(
        load(recipe, overrides, backend), allow_loss=allow_loss, written_for=written_for
    )
    ui.show_findings(findings)
    for file in rendered.files:
        write_atomic(out / file.name, file.text)
    if as_json:
        ui.emit({"files": [str(out / file.name) for file in rendered.files]})
    else:
        for file in rendered.files:
            ui.say(str(out / file.name))


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    backend: BackendName = None,
    smoke: SmokeFlag = False,
    on: submitting.On = None,
    nodes: submitting.Nodes = None,
    time: submitting.Time = None,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Print all files and commands of a run, here or as they would be on a cluster."""
    from orchestrator import ui
    from orchestrator.planning_view import memory_of, plan_document, show_plan
    from orchestrator.setup_run import planned_only
    from orchestrator.submission import enter

    json_mode(as_json)
    where = submitting.site(on, nodes, time, False, False)
    if where:
        loaded = submitting.load_on(where, recipe, overrides, backend)
        enter(where, loaded.recipe.backend, activate=False)
    else:
        loaded = load(recipe, overrides, backend)
    planned = planned_only(resolve(loaded, smoke=smoke, offline=offline, site=where))
    memory = memory_of(planned, where)
    if as_json:
        ui.emit(plan_document(planned, memory))
    else:
        show_plan(planned, memory)


@app.command()
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="A recipe's name or file.", autocompletion=complete_recipe
        ),
    ] = None,
    overrides: Overrides = None,
    backend: BackendName = None,
    smoke: SmokeFlag = False,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Go on from a run's first unfinished stage."),
    ] = None,
    on_oom: Annotated[
        str | None,
        typer.Option(
            "--on-oom",
            metavar="stop|retry",
            help="When memory is full: stop, or retry with what needs less of it.",
        ),
    ] = None,
    on: submitting.On = None,
    nodes: submitting.Nodes = None,
    time: submitting.Time = None,
    dry_run: submitting.DryRun = False,
    prepare_here: submitting.PrepareHere = False,
    no_install: NoInstall = False,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe through all its stages, here or on a cluster."""
    from orchestrator.errors import UsageError

    json_mode(as_json)
    if resume:
        if recipe or overrides or backend or smoke or nodes or dry_run:
            raise UsageError(
                "--resume goes on with the run's own recipe and nodes",
                hint="leave the recipe and its options out, or start a new run",
            )
        where = submitting.site(on, None, time, False, prepare_here)
        resume_run(resume, where, on_oom, install=not no_install, offline=offline, as_json=as_json)
        return
    if recipe is None:
        raise UsageError("name a recipe", hint="ft recipe run RECIPE, or --resume RUN")
    if on_oom:
        overrides = [*(overrides or ()), f"training.on_oom={on_oom}"]
    where = submitting.site(on, nodes, time, dry_run, prepare_here)
    if where:
        submitting.run_on(
            where, recipe, overrides, backend, smoke=smoke, offline=offline,
            install=not no_install, dry_run=dry_run, as_json=as_json,
        )  # fmt: skip
        return
    resolved = resolve(load(recipe, overrides, backend), smoke=smoke, offline=offline)
    pipeline = start(resolved, install=not no_install)
    pipeline.run()
    outcome(pipeline, as_json=as_json)


def resume_run(
    name: str,
    where: "Site | None",
    on_oom: str | None = None,
    *,
    install: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Go on with a run where it was started: here, or as jobs of its cluster.

    With `where` its jobs are made by that profile, as it is now, instead of as it was. `on_oom`
    becomes the run's own.

    Raises:
        UsageError: there is no such run, or it is not of a cluster.
    """
    from orchestrator.errors import UsageError
    from orchestrator.runs.record import open_record
    from orchestrator.submission import site_of

    folder = run_named(name)
    if folder is None:
        raise UsageError(f"there is no run {name}", hint="`ft runs list` shows runs")
    record = open_record(folder)
    known = record.document.get("cluster")
    target = where if where and known else site_of(record)
    if target is None:
        if where is not None:
            raise UsageError(
                f"{folder.name} was started on this machine",
                hint="leave --on out, or start a new run there",
            )
        settle(record, on_oom)
        pipeline = reopen(folder, install=install, offline=offline)
        pipeline.run()
        outcome(pipeline, as_json=as_json)
        return
    settle(record, on_oom)
    submitting.submit_again(record, target, install=install, offline=offline, as_json=as_json)


def settle(record: "Record", on_oom: str | None) -> None:
    """Write into the run's recipe what is done when memory is full.

    Raises:
        RecipeError: it is not one of the choices, or does not go together with the recipe.
    """
    from orchestrator.checks import placed
    from orchestrator.checks.batches import batch_search
    from orchestrator.files import write_atomic
    from orchestrator.findings import RecipeError
    from orchestrator.recipe.load import load as load_file
    from orchestrator.runs.lock import locked
    from orchestrator.yaml_out import dump

    if on_oom is None:
        return
    with locked(record.layout):
        loaded = load_file(record.layout.recipe, overrides=[f"training.on_oom={on_oom}"])
        wrong = [f for f in batch_search(loaded.recipe) if f.level == "error"]
        if wrong:
            raise RecipeError(placed(wrong, loaded))
        write_atomic(record.layout.recipe, dump(loaded.recipe.model_dump(mode="json")))


app.command("import")(import_recipes)


@app.command()
def schema() -> None:
    """Print a JSON Schema of recipes, for editors."""
    from orchestrator import ui
    from orchestrator.recipe.models import Recipe

    document = Recipe.model_json_schema()
    document["properties"]["extends"] = {
        "type": "string",
        "description": "recipe to build on, by path or name: what is not said here is said there",
    }
    ui.emit({"$schema": "https://json-schema.org/draft/2020-12/schema", **document})
