"""What is true of a run whose stages are jobs of a scheduler.

The record says what ft has seen; a job that never started, or that was killed, could not write
there. So the jobs are asked, in the order of the chain, and the first that has not ended well
decides. Once no job will write any more, what was found is put into the record, since Slurm
forgets.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.clusters.prelude import Stop
from orchestrator.errors import Exit, LaunchError, UsageError
from orchestrator.launchers import queue
from orchestrator.launchers.queue import JobState
from orchestrator.runs.record import Record, Status, locked, now

FINAL = frozenset({"done", "failed", "cancelled", "timeout"})

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
    """A run now: its status, why, and its jobs as Slurm knows them."""

    status: Status
    reason: str
    jobs: tuple[tuple[dict[str, Any], JobState | None], ...]


def jobs_of(record: Record) -> list[dict[str, Any]]:
    """The jobs that a run was submitted as; empty for a run on one machine."""
    jobs = record.document.get("jobs")
    return list(jobs) if isinstance(jobs, list) else []


def live(record: Record) -> Live:
    """What is true of a run now; a status that will not change any more is recorded."""
    jobs = jobs_of(record)
    recorded = record.status
    if not jobs or recorded in ("done", "cancelled", "timeout"):
        return Live(recorded, str(record.document.get("error") or ""),
                    tuple((job, None) for job in jobs))  # fmt: skip
    states = tuple((job, queue.look(str(job["id"]))) for job in jobs)
    status, reason = _judge(record, states)
    found = Live(status, reason, states)
    if status in FINAL and recorded != status:
        _settle(record, found)
    return found


def _judge(
    record: Record, states: tuple[tuple[dict[str, Any], JobState | None], ...]
) -> tuple[Status, str]:
    for job, state in states:
        name = f"job {job['id']} ({job['name']})"
        if state is None:
            return _unknown(record, name)
        if state.well:
            continue
        if state.running:
            return "running", f"{name} runs on {state.nodes}"
        if state.waiting:
            again = f", started {state.restarts} times before" if state.restarts else ""
            return "queued", f"{name} waits: {state.reason or state.state}{again}"
        return _ended(record, name, state)
    undone = [n for n, s in record.document.get("stages", {}).items() if s.get("status") != "done"]
    if undone:
        return "failed", f"all jobs have ended, but {undone[0]} is not done"
    return "done", ""


def _unknown(record: Record, name: str) -> tuple[Status, str]:
    """Slurm has forgotten the job, or there is none here; the record is all there is."""
    status: Status = record.document.get("status", "failed")
    error = str(record.document.get("error") or "")
    if status in FINAL:
        return status, error
    return status, f"not confirmed: Slurm says nothing of {name} here"


def _ended(record: Record, name: str, state: JobState) -> tuple[Status, str]:
    error = str(record.document.get("error") or "")
    status: Status = {"TIMEOUT": "timeout", "CANCELLED": "cancelled"}.get(  # type: ignore[assignment]
        state.state, "failed"
    )
    if state.state in WHY:
        return status, f"{name}: {WHY[state.state]} ({state.state})"
    if state.exit_code in STOPPED:
        return status, f"{name}: {STOPPED[Stop(state.exit_code)]}"
    if error and record.document.get("status") == "failed":
        return status, error
    end = f"signal {state.signal}" if state.signal else f"exit code {state.exit_code}"
    return status, f"{name}: {state.state}, {end}"


def exit_code(record: Record, found: Live) -> int:
    """What a command that waits for the run ends with."""
    if found.status == "done":
        return int(Exit.OK)
    if found.status == "cancelled":
        return int(Exit.INTERRUPTED)
    recorded = record.document.get("exit_code")
    if found.status == "failed" and record.document.get("error") == found.reason and recorded:
        return int(recorded)
    return int(Exit.JOB)


def _settle(record: Record, found: Live) -> None:
    """Record an end that no job could; a run that some ft works on is left alone."""
    document = record.document
    try:
        with locked(record.layout):
            for name, stage in document.get("stages", {}).items():
                if stage.get("status") == "running":
                    record.stage(name, status=found.status, ended=now(), error=found.reason)
            code = exit_code(record, found)
            record.update(status=found.status, error=found.reason or None, exit_code=code)
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
