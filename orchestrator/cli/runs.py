"""`ft runs`: what ran, how it ended, where it is; follow, wait for and cancel it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import AsJson, json_mode

if TYPE_CHECKING:
    from orchestrator.runs.jobs import Live
    from orchestrator.runs.record import Record

app = typer.Typer(
    rich_markup_mode=None, help="List, show, follow and cancel runs.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Option("--in", help="Folder that holds the runs.")]
Run = Annotated[str, typer.Argument(help="A run's folder, name, id, or `latest`.")]

STYLES = {"done": "green", "failed": "red", "died": "red", "timeout": "red",
          "interrupted": "yellow", "cancelled": "yellow"}  # fmt: skip


def opened(name: str, directory: Path) -> "Record":
    """The record of a run.

    Raises:
        UsageError: there is none.
    """
    from orchestrator.errors import UsageError
    from orchestrator.runs.record import find_run, open_record

    folder = find_run(name, directory)
    if folder is None:
        raise UsageError(f"there is no run {name}", hint="`ft runs list` shows runs")
    record = open_record(folder)
    if record.recovered:
        from orchestrator import ui

        ui.note("run.json cannot be read: this is its last version but one, with the markers")
    return record


@app.command("list")
def list_runs(directory: Directory = Path("runs"), as_json: AsJson = False) -> None:
    """All runs, oldest first."""
    from rich.text import Text

    from orchestrator import ui
    from orchestrator.errors import LaunchError, UsageError
    from orchestrator.launchers import queue
    from orchestrator.runs.jobs import live
    from orchestrator.runs.record import open_record, run_folders, summary

    json_mode(as_json)
    found, look = [], queue.until_silent()
    for root in run_folders(directory):
        try:
            record = open_record(root)
            now = live(record, look=look)
            still = now.still.as_dict() if now.still else None
            found.append({**summary(record), "status": now.status, "still": still})
        except (UsageError, LaunchError):
            found.append({"id": root.name, "path": str(root), "status": "broken", "stage": "",
                          "recipe": "", "backend": "", "loss": None})  # fmt: skip
    if as_json:
        ui.emit(found)
        return
    if not found:
        ui.say(f"no runs in {directory}")
        return
    ui.table(
        ("run", "status", "stage", "recipe", "backend", "loss"),
        [
            (
                run["id"],
                Text(run["status"], STYLES.get(run["status"], "cyan")),
                _stage_now(run),
                run["recipe"],
                run["backend"],
                f"{run['loss']:.3f}" if isinstance(run["loss"], float) else "",
            )
            for run in found
        ],
    )


def _stage_now(run: dict[str, Any]) -> str:
    from orchestrator.progress import duration

    still = run.get("still")
    return f"{run['stage']}, still for {duration(still['seconds'])}" if still else run["stage"]


@app.command()
def show(run: Run, directory: Directory = Path("runs"), as_json: AsJson = False) -> None:
    """One run: its stages, times, loss and files."""
    from orchestrator import ui
    from orchestrator.runs.jobs import live

    json_mode(as_json)
    record = opened(run, directory)
    found = live(record)
    folder = record.layout.root
    document = {
        **record.document,
        "status": found.status,
        "reason": found.reason,
        "path": str(folder),
        "still": found.still.as_dict() if found.still else None,
    }
    if as_json:
        ui.emit(document)
        return
    ui.say(f"{record.layout.id}: {found.status}")
    if found.reason:
        ui.say(f"{'error' if found.status == 'failed' else 'why'}: {found.reason}")
    _still(found)
    _stages(document)
    _attempts(document)
    ui.say(f"folder: {folder}")


def _still(found: "Live") -> None:
    from orchestrator import ui

    if found.still:
        ui.say(f"still: {found.still.text}; its log may say why (`ft runs logs`)")


def _attempts(document: dict[str, Any]) -> None:
    """How often training ran out of memory, and what was changed each time."""
    from rich.text import Text

    from orchestrator import ui
    from orchestrator.oom.attempts import described

    attempts = document.get("attempts") or []
    if attempts:
        rows = [(str(n), *described(attempt)) for n, attempt in enumerate(attempts, 1)]
        cells = [[Text(cell, overflow="fold") for cell in row] for row in rows]
        ui.table(("attempt", "with", "ended", "seconds"), cells)


def _stages(document: dict[str, Any]) -> None:
    from orchestrator import ui

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


def _described(record: "Record", found: "Live") -> dict[str, Any]:
    """The JSON document of `status` and `wait`."""
    return {
        "id": record.layout.id,
        "path": str(record.layout.root),
        "status": found.status,
        "reason": found.reason,
        "still": found.still.as_dict() if found.still else None,
        "jobs": [
            {
                **job,
                "state": state.state if state else None,
                "nodes": state.nodes if state else None,
                "restarts": state.restarts if state else None,
                "exit_code": state.exit_code if state else None,
            }
            for job, state in found.jobs
        ],
    }


@app.command()
def status(run: Run, directory: Directory = Path("runs"), as_json: AsJson = False) -> None:
    """What a run does now; for one on a cluster, what Slurm says of its jobs."""
    from orchestrator import ui
    from orchestrator.runs.jobs import live

    json_mode(as_json)
    record = opened(run, directory)
    found = live(record, every_job=True)
    if as_json:
        ui.emit(_described(record, found))
        return
    ui.say(f"{record.layout.id}: {found}")
    _still(found)
    if found.jobs:
        ui.table(
            ("job", "what", "state", "nodes", "starts"),
            [
                (
                    str(job["id"]),
                    job["name"],
                    state.state if state else "",
                    state.nodes if state else "",
                    str(state.restarts + 1) if state else "",
                )
                for job, state in found.jobs
            ],
        )
    _stages(record.document)


@app.command()
def logs(
    run: Run,
    what: Annotated[
        str | None,
        typer.Argument(help="A stage, or a job (prepare, train-job, finish); default: all jobs."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")
    ] = False,
    directory: Directory = Path("runs"),
) -> None:
    """Print what a run has said."""
    from orchestrator.runs.following import follow_logs, log_files, print_logs

    record = opened(run, directory)
    files = log_files(record, what)
    if follow:
        follow_logs(record, files)
    else:
        print_logs(files)


@app.command()
def cancel(run: Run, directory: Directory = Path("runs"), as_json: AsJson = False) -> None:
    """End a run: its jobs, or its processes here. What is done stays and can be resumed."""
    from orchestrator import ui
    from orchestrator.runs.jobs import end

    json_mode(as_json)
    record = opened(run, directory)
    found = end(record)
    if as_json:
        ui.emit(_described(record, found))
    else:
        ui.say(f"{record.layout.id}: {found}")


@app.command()
def wait(
    run: Run,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Give up after so many seconds.")
    ] = None,
    directory: Directory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Wait until a run has ended; the exit code is the run's."""
    from orchestrator import ui
    from orchestrator.runs.jobs import exit_code, wait_for

    json_mode(as_json)
    record = opened(run, directory)
    found = wait_for(record, timeout, lambda words: ui.note(f"{record.layout.id}: {words}"))
    record = opened(run, directory)
    if as_json:
        ui.emit(_described(record, found))
    else:
        ui.say(f"{record.layout.id}: {found}")
    raise typer.Exit(exit_code(record, found.status))


@app.command()
def sync(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Default: all runs in the folder.")
    ] = None,
    directory: Directory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Upload what wandb has kept offline; what was uploaded before is left alone."""
    from orchestrator import ui
    from orchestrator.environments.environment import find
    from orchestrator.runs.record import readable_runs
    from orchestrator.runs.syncing import offline_runs, ready, upload

    json_mode(as_json)
    records = [opened(run, directory)] if run else readable_runs(directory)
    found = [(record, kept) for record in records for kept in offline_runs(record)]
    before = [kept for _, kept in found if kept.synced]
    waiting = [(record, kept) for record, kept in found if not kept.synced]
    if waiting:
        ready()
    for record, kept in waiting:
        ui.note(f"upload {kept.folder.name} of {kept.run}")
        upload(kept, find(str(record.document["backend"])))
    if as_json:
        ui.emit({"uploaded": [kept.as_dict() for _, kept in waiting],
                 "before": [kept.as_dict() for kept in before]})  # fmt: skip
    else:
        ui.say(f"{len(waiting)} uploaded, {len(before)} were before")
