"""What is true of a run whose stages are jobs of a scheduler.

The record says what ft has seen; a job that never started, or that was killed, could not write
there. So the jobs are asked, in the order of the chain, and the first that has not ended well
decides. Once no job will write any more, what was found is put into the record, since Slurm
forgets.
"""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Exit, JobError, LaunchError, UsageError
from orchestrator.launchers import queue
from orchestrator.launchers.queue import JobState
from orchestrator.launchers.slurm import CHAIN
from orchestrator.runs import stillness
from orchestrator.runs.lock import holder, is_locked, locked
from orchestrator.runs.record import Record, Status, now, open_record
from orchestrator.runs.stillness import Still
from orchestrator.runs.verdict import of_ended, of_waiting

Look = Callable[[str], JobState | None]

FINAL = frozenset({"done", "failed", "cancelled", "timeout"})
ACTIVE = frozenset({"queued", "running"})
"""What a run with jobs, or the `ft` that holds its lock, will still change by itself."""

SEEN_WITHIN = 15.0
"""Seconds until what a node has written is surely seen here, through a network file system."""


@dataclass(frozen=True, slots=True)
class Live:
    """A run now: its status, why, its jobs as Slurm knows them, and whether it stands still."""

    status: Status
    reason: str
    jobs: tuple[tuple[dict[str, Any], JobState | None], ...]
    still: Still | None = None

    def __str__(self) -> str:
        return f"{self.status} ({self.reason})" if self.reason else self.status


def jobs_of(record: Record) -> list[dict[str, Any]]:
    """The jobs that a run was submitted as; empty for a run on one machine."""
    jobs = record.document.get("jobs")
    return list(jobs) if isinstance(jobs, list) else []


def live(record: Record, *, every_job: bool = False, look: Look | None = None) -> Live:
    """What is true of a run now; an end that no job could record is recorded.

    Only the first job that is not done is asked about, unless `every_job` is wanted: a list of runs
    must not cost a call of Slurm for each job that ever was. `look` is shared by such a list.
    """
    found = _live(record, every_job, look or queue.until_silent())
    if found.status != "running":
        return found
    return dataclasses.replace(found, still=stillness.of(record))


def _live(record: Record, every_job: bool, look: Look) -> Live:
    halfway = _broken_off(record)
    jobs = jobs_of(record)
    if not jobs:
        return Live("interrupted", _half_submitted(record), ()) if halfway else _here(record)
    status: Status = record.document.get("status", "failed")
    states: dict[str, JobState | None] = {}
    if status in FINAL:
        reason = str(record.document.get("error") or "")
    elif halfway:
        status, reason = "interrupted", _half_submitted(record)
    else:
        status, reason = _judge(record, jobs, states, look)
        if status in FINAL:
            _settle(record, status, reason)
    if every_job:
        states |= {job["id"]: look(job["id"]) for job in jobs if job["id"] not in states}
    return Live(status, reason, tuple((job, states.get(job["id"])) for job in jobs))


def _here(record: Record) -> Live:
    """A run whose stages are processes, of this machine or of another."""
    status = record.status
    reason = str(record.document.get("error") or "")
    if status == "died":
        reason = f"ft was killed; go on with: ft recipe run --resume {record.layout.id}"
        for stage in record.document.get("stages", {}).values():
            if stage.get("status") == "running":
                stage["status"] = "died"
    elif status == "running" and record.elsewhere and not is_locked(record.layout):
        reason = f"not confirmed: {record.elsewhere} said so, and cannot be asked from here"
    return Live(status, reason, ())


def _broken_off(record: Record) -> bool:
    """Whether ft ended while it submitted: stages that are not done have no job."""

    def halfway() -> bool:
        with_job = {stage for job in jobs_of(record) for stage in job["stages"]}
        return record.document.get("status") == "queued" and bool(_left(record) - with_job)

    if not halfway() or is_locked(record.layout):
        return False
    record.document = open_record(record.layout.root).document  # it may have just been written
    return halfway()


def _left(record: Record) -> set[str]:
    """Stages of jobs that are not done."""
    in_jobs = {stage for stages in CHAIN.values() for stage in stages}
    stages = in_jobs & {*record.document.get("stages", {})}
    return {stage for stage in stages if not record.layout.marker(stage).is_file()}


def _half_submitted(record: Record) -> str:
    name = record.layout.id
    return (
        f"ft ended before all its jobs were submitted; `ft runs cancel {name}` removes those that "
        f"are in the queue, then go on with: ft recipe run --resume {name}"
    )


def _judge(
    record: Record, jobs: list[dict[str, Any]], states: dict[str, JobState | None], look: Look
) -> tuple[Status, str]:
    """Status and reason of the first job that has not done its stages; what was asked: `states`."""
    for job in jobs:
        if _done(record, job):
            continue
        state = states[job["id"]] = look(job["id"])
        if state and state.ended and _held_here(record):  # `ft export RUN`, after its jobs
            return "running", "an ft works on it here, in no job"
        if state and state.ended:  # since the record was read it may have done them
            _read_its_last_words(record, job, state)
            if _done(record, job):
                continue
        return _verdict(record, f"job {job['id']} ({job['name']})", state)
    return ("interrupted", _half_submitted(record)) if _left(record) else ("done", "")


def _held_here(record: Record) -> bool:
    """Whether an ft of this machine works on it; the lock of a lost node may outlive its ft."""
    found = holder(record.layout)
    return found is not None and found.alive and is_locked(record.layout)


def _done(record: Record, job: dict[str, Any]) -> bool:
    return all(record.layout.marker(stage).is_file() for stage in job["stages"])


def _read_its_last_words(record: Record, job: dict[str, Any], state: JobState) -> None:
    """Read what an ended job has written.

    An ft that ends by itself has written how, before. Where that is not seen it is on its way
    through a network file system, which remembers for some time that a file was not there.
    """
    ended = state.state in ("COMPLETED", "FAILED") and not state.signal
    by_itself = ended and state.exit_code in {*Exit}
    deadline = time.monotonic() + (SEEN_WITHIN if by_itself else 0)
    while True:
        record.document = open_record(record.layout.root).document
        told = record.document.get("status") in (*FINAL, "interrupted")
        if told or _done(record, job) or time.monotonic() > deadline:
            return
        time.sleep(0.5)
        for folder in (record.layout.root, record.layout.marker("train").parent):
            with contextlib.suppress(OSError):  # a change brings the server's word on the folder
                os.chown(folder, folder.stat().st_uid, -1)


def _verdict(record: Record, name: str, state: JobState | None) -> tuple[Status, str]:
    status: Status = record.document.get("status", "failed")
    if status in FINAL:
        return status, str(record.document.get("error") or "")
    if state is None:  # between two jobs, or two starts of one, the record says something else
        known: Status = status if status in ACTIVE else "queued"
        return known, f"not confirmed: Slurm does not answer here about {name}"
    if state.running:
        return "running", f"{name} on {state.nodes}"
    if state.waiting:
        return "queued", of_waiting(name, state)
    return of_ended(name, state, record.layout.id)


def exit_code(record: Record, status: Status) -> int:
    """What a command that waits for the run ends with."""
    if status in ("done", "waiting"):
        return int(Exit.OK)
    if status in ("cancelled", "interrupted"):
        return int(Exit.INTERRUPTED)
    recorded = record.document.get("exit_code")
    return int(recorded) if status == "failed" and recorded else int(Exit.JOB)


def _settle(record: Record, status: Status, reason: str) -> None:
    """Record an end that no job could; a run that some ft works on is left alone."""
    if record.document.get("status") == status:
        return
    try:
        with locked(record.layout):
            record.reread()
            if record.document.get("status") in FINAL:
                return
            for name, stage in record.document.get("stages", {}).items():
                if stage.get("status") in ("running", "interrupted") and status != "done":
                    record.stage(name, status=status, ended=now(), error=reason)
            code = 0 if status == "done" else int(Exit.JOB)
            record.update(status=status, error=reason or None, exit_code=code)
    except (LaunchError, OSError):  # held by an ft, or a folder that only others may write
        return


def none_active(record: Record) -> None:
    """Before a run is submitted again.

    What waits for a job that has failed never starts: Slurm takes it out of the queue some moments
    later, and here it is done at once.

    Raises:
        UsageError: a job of it waits or runs.
        JobError: Slurm does not say.
    """
    failed = False
    for job in jobs_of(record):
        state = queue.look(str(job["id"]))
        if state is None:
            raise JobError(
                f"Slurm does not answer about job {job['id']} ({job['name']}) of this run",
                hint="again when it does: a second job must not train beside it",
            )
        if failed and state.waiting:
            queue.cancel([str(job["id"])])
        elif not state.ended:
            raise UsageError(
                f"job {job['id']} ({job['name']}) of this run is {state.state}",
                hint=f"wait for it, or `ft runs cancel {record.layout.id}`",
            )
        failed = failed or (state.ended and not state.well and state.state != queue.UNKNOWN)


def wait_for(
    record: Record, timeout: float | None = None, say: Callable[[str], None] | None = None
) -> Live:
    """What a run has ended as; `say` is told what it waits for.

    Raises:
        JobError: it has not within `timeout` seconds.
    """
    started, pause, said = time.monotonic(), 0.5, ""
    while True:
        found = live(open_record(record.layout.root))
        if found.status not in ACTIVE:
            return found
        if say and found.reason and str(found) != said:
            said = str(found)
            say(said)
        if timeout is not None and time.monotonic() - started + pause > timeout:
            raise JobError(
                f"{record.layout.id} is still {found.status} after {timeout:.0f} s",
                detail=found.reason,
                hint=f"wait longer, or `ft runs cancel {record.layout.id}`",
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 15.0)


def end(record: Record) -> Live:
    """End a run, and return what it ended as; one that has ended is left as it is.

    Raises:
        UsageError: it runs on another machine, or is another user's.
        JobError: Slurm cannot cancel, or the run does not end.
    """
    found = live(record, every_job=True)
    if found.jobs and found.status not in FINAL:
        queue.cancel(
            [str(job["id"]) for job, state in found.jobs if state is None or not state.ended]
        )
    elif found.status not in ACTIVE:
        return found
    else:
        _interrupt(record)
    return wait_for(record, timeout=120)


def _interrupt(record: Record) -> None:
    """Ask the `ft` that works on a run of this machine to end, as Ctrl-C would.

    One that was killed is not asked: its number may be another program's by now, and what it had
    started is ending.
    """
    found = holder(record.layout)
    if found is None or not found.here:
        where = found.host if found else record.elsewhere
        raise UsageError(
            f"{record.layout.id} runs on {where or 'another machine'}",
            hint="cancel it there, or press Ctrl-C where it runs",
        )
    if found.alive:
        try:
            os.kill(found.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise UsageError(
                f"process {found.pid}, which works on {record.layout.id}, is another user's",
                hint="who started it can cancel it",
            ) from error
