"""`ft plan`: what a run needs before it starts, and how well that was foretold."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.cluster import complete_cluster
from orchestrator.cli.common import (
    AsJson,
    BackendName,
    OfflineFlag,
    Overrides,
    RecipeName,
    json_mode,
    load,
)

if TYPE_CHECKING:
    from orchestrator.runs.record import Record

app = typer.Typer(
    rich_markup_mode=None, help="Memory of a run: planned, and measured.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Option("--in", help="Folder that holds the runs.")]
GpuSpec = Annotated[
    str | None,
    typer.Option("--gpus", metavar="SPEC", help="GPUs: 4xA100-40GB, 2xH100; default: those seen."),
]


@app.command()
def memory(
    recipe: RecipeName,
    gpus: GpuSpec = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="CLUSTER",
            help="The GPUs and nodes of this cluster.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="With --on: nodes that train.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The model's config.json."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every term with its formula and source.")
    ] = False,
    overrides: Overrides = None,
    backend: BackendName = None,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the memory of a recipe; exit code 3 if it does not fit on the GPUs."""
    from orchestrator import hardware, ui
    from orchestrator.cli.submitting import load_on, site
    from orchestrator.distributed import own_file
    from orchestrator.errors import Exit, UsageError
    from orchestrator.memory import lookup, planning, view
    from orchestrator.memory.gpus import parse

    json_mode(as_json)
    where = site(on, nodes, None, False, False)
    if where and gpus:
        raise UsageError("--gpus and --on exclude each other", hint="--on takes the profile's GPUs")
    loaded = load_on(where, recipe, overrides, backend) if where else load(
        recipe, overrides, backend
    )  # fmt: skip
    given = parse(gpus) if gpus else where.gpus(loaded.recipe) if where else None
    beside = loaded.file.resolve().parent
    found = lookup.find(loaded.recipe, beside, config, network=not offline)
    own = own_file.of_recipe(loaded.recipe, beside)
    chosen = given if where or given else planning.seen(hardware.gpus())
    host = where.host_memory if where else planning.host_memory() if chosen and not given else None
    recipe_of = planning.on_any_number(loaded.recipe) if gpus else loaded.recipe
    planned = planning.of_recipe(recipe_of, found, chosen, host=host, deepspeed=own)
    if as_json:
        ui.emit(view.document(planned))
    else:
        view.show(planned, explain=explain)
    if planned.plan.own.fits is False:
        raise typer.Exit(int(Exit.CHECK))


@app.command()
def accuracy(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs; default: all in the folder."),
    ] = None,
    directory: Directory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare what was predicted with what finished runs measured."""
    from orchestrator import ui
    from orchestrator.memory.accuracy import compare, summary
    from orchestrator.memory.view import show_accuracy

    json_mode(as_json)
    found = [compare(record) for record in _records(runs or [], directory)]
    comparisons = [one for one in found if one is not None]
    if as_json:
        rows = [one.as_dict() for one in comparisons]
        ui.emit({"runs": rows, "summary": summary(comparisons)})
    else:
        show_accuracy(comparisons, summary(comparisons))


def _records(names: list[str], directory: Path) -> "Iterator[Record]":
    """The named runs, or all that can be read."""
    from orchestrator.errors import UsageError
    from orchestrator.runs.record import find_run, open_record, run_folders

    for name in names:
        folder = find_run(name, directory)
        if folder is None:
            raise UsageError(f"there is no run {name}", hint="`ft runs list` shows runs")
        yield open_record(folder)
    for folder in () if names else run_folders(directory):
        with contextlib.suppress(UsageError):  # a broken record; `ft runs list` shows it
            yield open_record(folder)
