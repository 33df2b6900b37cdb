"""The logs of a run, as they are and while they grow."""

import sys
import time
from pathlib import Path

from orchestrator import ui
from orchestrator.errors import UsageError
from orchestrator.plan import STAGES
from orchestrator.runs.jobs import ACTIVE, jobs_of, live
from orchestrator.runs.record import Record, open_record

EVERY = 0.5
ASK_EVERY = 5.0
CHUNK = 1 << 20


def log_files(record: Record, what: str | None) -> list[Path]:
    """The files to print: of a stage, of a job, of all jobs, or of all stages.

    Raises:
        UsageError: there is nothing of that name.
    """
    layout = record.layout  # as it is now: the folder may have been moved
    jobs = {str(job["name"]): layout.log(f"slurm-{job['name']}") for job in jobs_of(record)}
    names = {name if name not in STAGES else f"{name}-job": log for name, log in jobs.items()}
    if what is None:
        return list(jobs.values()) or [layout.log(stage) for stage in STAGES]
    if what in names:
        return [names[what]]
    if what in STAGES:
        return [layout.log(what)]
    raise UsageError(
        f"there is no stage or job {what!r} in this run",
        hint=f"one of {', '.join([*STAGES, *names])}",
    )


def print_logs(files: list[Path]) -> None:
    """What is there, with the file's name where there are several."""
    found = [file for file in files if file.is_file()]
    if not found:
        ui.note("nothing was said yet; `ft runs status` says what it waits for")
    for file in found:
        if len(found) > 1:
            _print(f"==> {file.name} <==\n".encode())
        _print_from(file, 0)


def _print(output: bytes) -> None:
    """Output of other programs, as it is: whatever its encoding, with the bars of its progress."""
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def follow_logs(record: Record, files: list[Path]) -> None:
    """Print what is there and what comes, until the run has ended.

    What it waits for, and why it has ended, no log says: that goes to stderr.
    """
    positions = dict.fromkeys(files, 0)
    asked, active, said = 0.0, True, ""
    while True:
        for file in files:
            positions[file] = _print_from(file, positions[file])
        if not active:
            return
        if time.monotonic() - asked > ASK_EVERY:
            asked = time.monotonic()
            found = live(open_record(record.layout.root))
            active = found.status in ACTIVE
            if found.reason and str(found) != said:
                said = str(found)
                ui.note(f"{record.layout.id}: {said}")
            continue  # once more, for what was written before the end
        time.sleep(EVERY)


def _print_from(file: Path, position: int) -> int:
    try:
        handle = file.open("rb")
    except OSError:
        return position
    with handle:
        handle.seek(position)
        while chunk := handle.read(CHUNK):
            _print(chunk)
        return handle.tell()
