"""`ft runs`: what ran, how it ended, and where it is."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import AsJson, json_mode

app = typer.Typer(rich_markup_mode=None, help="List and show runs.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--in", help="Folder that holds the runs.")]


@app.command("list")
def list_runs(directory: Directory = Path("runs"), as_json: AsJson = False) -> None:
    """All runs, oldest first."""
    from orchestrator import ui
    from orchestrator.errors import UsageError
    from orchestrator.runs.record import open_record, run_folders, summary

    json_mode(as_json)
    found = []
    for root in run_folders(directory):
        try:
            found.append(summary(open_record(root)))
        except UsageError:
            found.append({"id": root.name, "path": str(root), "status": "broken", "stage": "",
                          "recipe": "", "backend": "", "loss": None})  # fmt: skip
    if as_json:
        ui.emit(found)
        return
    if not found:
        ui.say(f"no runs in {directory}")
        return
    styles = {"done": "green", "failed": "red", "died": "red", "interrupted": "yellow"}
    ui.table(
        ("run", "status", "stage", "recipe", "backend", "loss"),
        [
            (
                run["id"],
                f"[{styles.get(run['status'], 'cyan')}]{run['status']}[/]",
                run["stage"],
                run["recipe"],
                run["backend"],
                f"{run['loss']:.3f}" if isinstance(run["loss"], float) else "",
            )
            for run in found
        ],
    )


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder, name, id, or `latest`.")],
    directory: Directory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """One run: its stages, times, loss and files."""
    from orchestrator import ui
    from orchestrator.errors import UsageError
    from orchestrator.runs.record import find_run, open_record

    json_mode(as_json)
    folder = find_run(run, directory)
    if folder is None:
        raise UsageError(f"there is no run {run}", hint="`ft runs list` shows runs")
    record = open_record(folder)
    document = {**record.document, "status": record.status, "path": str(folder)}
    if as_json:
        ui.emit(document)
        return
    ui.say(f"{record.layout.id}: {record.status}")
    if document.get("error"):
        ui.say(f"error: {document['error']}")
    ui.table(
        ("stage", "status", "seconds", ""),
        [
            (
                name,
                stage.get("status", ""),
                f"{stage['seconds']:.1f}" if "seconds" in stage else "",
                str(stage.get("facts", {}).get("summary") or stage.get("error") or ""),
            )
            for name, stage in document.get("stages", {}).items()
        ],
    )
    ui.say(f"folder: {folder}")
