"""`ft plan`: what a run needs before it starts, and how well that was foretold."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from orchestrator.distributed import own_file
    from orchestrator.errors import Exit
    from orchestrator.memory import lookup, planning, view
    from orchestrator.memory.gpus import parse

    json_mode(as_json)
    given = parse(gpus) if gpus else None
    loaded = load(recipe, overrides, backend)
    beside = loaded.file.resolve().parent
    found = lookup.find(loaded.recipe, beside, config, network=not offline)
    own = own_file.of_recipe(loaded.recipe, beside)
    here = given is None
    chosen = given or planning.seen(hardware.gpus())
    host = planning.host_memory() if here and chosen else None
    recipe_of = loaded.recipe if given is None else planning.on_any_number(loaded.recipe)
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
