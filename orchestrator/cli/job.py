"""`ft job`: what the batch scripts of a run call."""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from orchestrator.errors import FtError, Suspended
    from orchestrator.pipeline import Pipeline
    from orchestrator.runs.record import Record

REQUEUE_PAUSES = (5.0, 10.0, 20.0, 0.0)
"""Seconds after each try to put a job back into the queue."""


def job(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder.")],
    name: Annotated[str, typer.Argument(metavar="JOB", help="prepare, train or finish.")],
) -> None:
    """Do the stages of one job of a run; its batch script calls this."""
    from orchestrator.cli.common import reopen
    from orchestrator.errors import FtError, Suspended, UsageError
    from orchestrator.launchers.slurm import CHAIN
    from orchestrator.runs.record import open_record
    from orchestrator.submission import site_of, temporary

    identity = os.environ.get("SLURM_JOB_ID", "")
    record = open_record(Path(run))
    by_hand = UsageError(
        "`ft job` is for batch scripts that ft made", hint="ft recipe run RECIPE --on CLUSTER"
    )
    if not identity or name not in CHAIN:
        raise by_hand
    try:
        where = site_of(record)
    except UsageError as error:
        _record_failure(record, error)
        raise
    if where is None:
        raise by_hand
    scratch = temporary()
    try:
        _still_allowed(record, where.cluster.requeue)
        _wait_for_the_one_before(record)
        pipeline = reopen(Path(run), install=False, offline=where.cluster.offline)
        pipeline.patience = where.cluster.warn_before * 0.75
        _suspend_on_warning(pipeline)
        there = [stage.name for stage in pipeline.plan.stages if stage.name in CHAIN[name]]
        pipeline.run(until=there[-1])
    except Suspended as error:
        _again(record, identity, where.cluster.requeue, error)
    except FtError as error:
        _record_failure(record, error)
        raise
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def _wait_for_the_one_before(record: "Record", seconds: float = 180.0) -> None:
    """A requeued job may start while what is left of its first start still ends on a lost node."""
    import time

    from orchestrator.runs.lock import is_locked

    deadline = time.monotonic() + seconds
    while is_locked(record.layout) and time.monotonic() < deadline:
        time.sleep(1)


def _restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _still_allowed(record: "Record", limit: int) -> None:
    """A job that is requeued again and again (by Slurm, too) does not get anywhere.

    Raises:
        JobError: it was requeued more often than the profile allows.
    """
    if _restarts() > limit:
        _give_up(record, f"the job was requeued {_restarts()} times, {limit} are allowed")


def _again(record: "Record", identity: str, limit: int, error: "Suspended") -> NoReturn:
    """Put the job back into the queue, as often as the profile allows.

    Raises:
        Suspended: it is there.
        JobError: it may not be, or Slurm does not.
    """
    if _restarts() >= limit:
        _give_up(record, f"{error.message}; it was requeued {_restarts()} of {limit} times")
    refused = _requeued(identity)
    if refused:
        _give_up(record, f"{error.message}, but {refused}")
    error.hint = f"job {identity} is in the queue again and goes on from there"
    raise error


def _requeued(identity: str) -> str:
    """Put the job back into the queue; gives the reason if Slurm does not.

    A controller that is just restarted must not end a run: training was asked to end some minutes
    before its limit, so there is time.
    """
    import time

    from orchestrator.errors import JobError, LaunchError
    from orchestrator.launchers import queue

    for pause in REQUEUE_PAUSES:
        try:
            queue.requeue(identity)
        except (JobError, LaunchError) as failure:
            refused = failure.message
            time.sleep(pause)
        else:
            return ""
    return refused


def _give_up(record: "Record", message: str) -> NoReturn:
    from orchestrator.errors import JobError

    error = JobError(
        message,
        hint=f"look at time, warn_before and training.save, then: ft recipe run --resume "
        f"{record.layout.root}; requeue in the cluster profile is the limit",
    )
    _record_failure(record, error)
    raise error


def _record_failure(record: "Record", error: "FtError") -> None:
    """Write down why a job failed, where no stage of it has."""
    from orchestrator.errors import LaunchError, RunInterrupted
    from orchestrator.runs.jobs import FINAL
    from orchestrator.runs.lock import locked

    with contextlib.suppress(LaunchError), locked(record.layout):
        record.reread()
        told = isinstance(error, RunInterrupted) or record.document.get("status") in FINAL
        if not told:
            record.update(status="failed", error=error.message, exit_code=int(error.exit_code))


def _suspend_on_warning(pipeline: "Pipeline") -> None:
    """SIGUSR1 is Slurm's warning before the time limit (`--signal=B:USR1@...`)."""

    def warned(number: int, frame: FrameType | None) -> None:
        pipeline.suspend()

    signal.signal(signal.SIGUSR1, warned)
