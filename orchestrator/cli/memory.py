"""`ft plan`: what a run needs before it starts, and how well that was foretold."""

from pathlib import Path
from typing import Annotated

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

app = typer.Typer(
    rich_markup_mode=None, help="Memory of a run: planned, and measured.", no_args_is_help=True
)

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
    from orchestrator.errors import Exit
    from orchestrator.memory import lookup, planning, view
    from orchestrator.memory.gpus import parse

    json_mode(as_json)
    given = parse(gpus) if gpus else None
    loaded = load(recipe, overrides, backend)
    found = lookup.find(loaded.recipe, loaded.file.resolve().parent, config, network=not offline)
    here = given is None
    chosen = given or planning.seen(hardware.gpus())
    host = planning.host_memory() if here and chosen else None
    planned = planning.of_recipe(loaded.recipe, found, chosen, host=host)
    if as_json:
        ui.emit(view.document(planned))
    else:
        view.show(planned, explain=explain)
    if planned.plan.own.fits is False:
        raise typer.Exit(int(Exit.CHECK))
