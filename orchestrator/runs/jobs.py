"""What is true of a run whose stages are jobs of a scheduler.

The record says what ft has seen; a job that never started, or that was killed, could not write
there. So the jobs are asked, in the order of the chain, and the first that has not ended well
decides. Once no job will write any more, what was found is put into the record, since Slurm
forgets.
"""

import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from orchestrator.clusters.prelude import Stop
from orchestrator.errors import Exit, JobError, LaunchError, UsageError
from orchestrator.launchers import queue
from orchestrator.launchers.queue import JobState
from orchestrator.runs import stillness
from orchestrator.runs.lock import holder, is_locked, locked
from orchestrator.runs.record import Record, Status, now, open_record
from orchestrator.runs.stillness import Still

FINAL = frozenset({"done", "failed", "cancelled", "timeout"})
ACTIVE = frozenset({"queued", "running"})
"""What a run with jobs, or the `ft` that holds its lock, will still change by itself."""

WHY = {
    "TIMEOUT": "the time limit was reached",
    "OUT_OF_MEMORY": "it needed more memory than the job had",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not start",
    "PREEMPTED": "another job took its nodes",
    "DEADLINE": "it could not end before its deadline",
    "CANCELLED": "it was cancelled",
}
STOPPED = {
    Stop.MODULE_COMMAND: "its script found no command module",
    Stop.MODULE: "a module of the cluster profile cannot be loaded",
    Stop.ENVIRONMENT: "the environment of the cluster profile cannot be activated",
    Stop.SCRATCH: "the scratch folder cannot be written",
}


@dataclass(frozen=True, slots=True)
class Live:
    """A run now: its status, why, its jobs as Slurm knows them, and whether it stands still."""

    status: Status
    reason: str
    jobs: tuple[tuple[dict[str, Any], JobState | None], ...]
    still: Still | None = None


def jobs_of(record: Record) -> list[dict[str, Any]]:
    """The jobs that a run was submitted as; empty for a run on one machine."""
    jobs = record.document.get("jobs")
    return list(jobs) if isinstance(jobs, list) else []


def live(record: Record, *, every_job: bool = False) -> Live:
    """What is true of a run now; an end that no job could record is recorded.

    Only the first job that is not done is asked about, unless `every_job` is wanted: a list of runs
    must not cost a call of Slurm for each job that ever was.
    """
    found = _live(record, every_job)
    if found.status != "running":
        return found
    return dataclasses.replace(found, still=stillness.of(record))


def _live(record: Record, every_job: bool) -> Live:
    jobs = jobs_of(record)
    if not jobs:
        return _here(record)
    status: Status = record.document.get("status", "failed")
    states: dict[str, JobState | None] = {}
    if status in FINAL:
        reason = str(record.document.get("error") or "")
    else:
        status, reason = _judge(record, jobs, states)
        if status in FINAL:
            _settle(record, status, reason)
    if every_job:
        states |= {job["id"]: queue.look(job["id"]) for job in jobs if job["id"] not in states}
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


def _judge(
    record: Record, jobs: list[dict[str, Any]], states: dict[str, JobState | None]
) -> tuple[Status, str]:
    """Status and reason of the first job that has not done its stages; what was asked: `states`."""
    for job in jobs:
        if _done(record, job):
            continue
        state = states[job["id"]] = queue.look(job["id"])
        if state and state.ended:  # since the record was read it may have done them
            record.document = open_record(record.layout.root).document
            if _done(record, job):
                continue
        return _verdict(record, f"job {job['id']} ({job['name']})", state)
    return "done", ""


def _done(record: Record, job: dict[str, Any]) -> bool:
    return all(record.layout.marker(stage).is_file() for stage in job["stages"])


def _verdict(record: Record, name: str, state: JobState | None) -> tuple[Status, str]:
    status: Status = record.document.get("status", "failed")
    if status in FINAL:
        return status, str(record.document.get("error") or "")
    if state is None:
        return status, f"not confirmed: Slurm does not answer here about {name}"
    if state.running:
        return "running", f"{name} on {state.nodes}"
    if state.waiting:
        again = f", started {state.restarts} times before" if state.restarts else ""
        held = f"; `scontrol release {state.id}` lets it start" if _held(state) else ""
        return "queued", f"{name}: {state.reason or state.state}{again}{held}"
    return _ended(name, state)


def _held(state: JobState) -> bool:
    """Slurm will not start it by itself: somebody held it, or a node could not launch it."""
    return state.state == "REQUEUE_HOLD" or "held" in state.reason.lower()


def _ended(name: str, state: JobState) -> tuple[Status, str]:
    """A job that has ended without its stages, and without a word of ft's about it."""
    if state.state == "UNKNOWN":
        return "died", f"Slurm knows nothing of {name} any more, and it is not done"
    ends: dict[str, Status] = {"TIMEOUT": "timeout", "CANCELLED": "cancelled"}
    status = ends.get(state.state, "failed")
    if state.state in WHY:
        return status, f"{name}: {WHY[state.state]} ({state.state})"
    if state.exit_code in STOPPED:
        return status, f"{name}: {STOPPED[Stop(state.exit_code)]}"
    end = f"signal {state.signal}" if state.signal else f"exit code {state.exit_code}"
    return status, f"{name}: {state.state}, {end}, before ft could say why; see its log"


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
    document = record.document
    if document.get("status") == status:
        return
    try:
        with locked(record.layout):
            for name, stage in document.get("stages", {}).items():
                if stage.get("status") in ("running", "interrupted") and status != "done":
                    record.stage(name, status=status, ended=now(), error=reason)
            code = 0 if status == "done" else int(Exit.JOB)
            record.update(status=status, error=reason or None, exit_code=code)
    except (LaunchError, OSError):  # held by an ft, or a folder that only others may write
        return


def none_active(record: Record) -> None:
    """Before a run is submitted again.

    Raises:
        UsageError: a job of it waits or runs.
    """
    for job in jobs_of(record):
        state = queue.look(str(job["id"]))
        if state is not None and not state.ended:
            raise UsageError(
                f"job {job['id']} ({job['name']}) of this run is {state.state}",
                hint=f"wait for it, or `ft runs cancel {record.layout.id}`",
            )


def wait_for(record: Record, timeout: float | None = None) -> Live:
    """What a run has ended as.

    Raises:
        JobError: it has not within `timeout` seconds.
    """
    started, pause = time.monotonic(), 0.5
    while True:
        found = live(open_record(record.layout.root))
        if found.status not in ACTIVE:
            return found
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
    if found.status not in ACTIVE:
        return found
    if found.jobs:
        queue.cancel([str(job["id"]) for job, state in found.jobs if state and not state.ended])
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
