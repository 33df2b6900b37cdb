"""Slurm's own commands: submit, look, cancel. The only place that calls them.

A job's state is asked of the controller, and when that has forgotten it (MinJobAge, some minutes
after its end) of the accounting, then of the job completion file: many sites have one of the two
only. `scontrol --json` is not asked, since 22.05 has none and later releases differ.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import shell
from orchestrator.errors import JobError, LaunchError
from orchestrator.launchers.slurm import PROGRAMS, submit_environment

TIMEOUT = 60.0  # sbatch and scancel wait long for a controller that is down

RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING"}
)
UNKNOWN = "UNKNOWN"
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "TIMEOUT", UNKNOWN}
)  # fmt: skip
"""All that Slurm ends a job as. A word that is in neither list, of a newer Slurm, is no end."""


SILENT = re.compile(r"(?i)unable to contact|timed out|zero bytes|connection refused")
"""What Slurm's commands say when the controller does not answer."""


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as Slurm knows it. `exit_code` is 0 for a job that a signal ended: judge by state."""

    id: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    nodes: str = ""
    restarts: int = 0

    @property
    def waiting(self) -> bool:
        """It has not started, or will start again."""
        return not (self.running or self.ended)

    @property
    def running(self) -> bool:
        """It has nodes now."""
        return self.state in RUNNING

    @property
    def ended(self) -> bool:
        """It will not run again."""
        return self.state in ENDED

    @property
    def well(self) -> bool:
        """It ended as it should."""
        return self.state == "COMPLETED"


def environment() -> dict[str, str]:
    """What Slurm's commands, and so jobs, get of ours."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    found = [f for f in folders if any(shutil.which(name, path=f) for name in PROGRAMS)]
    return submit_environment(os.environ, found)


def _slurm(*argv: str) -> tuple[int, str, str]:
    """In a session of its own: Ctrl-C is for ft, which asks sbatch first what it has done."""
    return shell.capture(argv, env=environment(), timeout=TIMEOUT, own_session=True)


def ready() -> None:
    """Whether jobs can be submitted from here: asked before an hour of downloads.

    Raises:
        LaunchError: Slurm's commands are not there.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise LaunchError(
            f"jobs cannot be submitted from here, not found: {', '.join(missing)}",
            hint="run this on a login node of the cluster; if Slurm is a module there, load it",
        )


def submit(script: Path, *, after: str | None = None, hold: bool = False) -> str:
    """Hand a batch script to Slurm and return the job's id.

    `after`: it starts when that job has ended well, and is cancelled when it cannot (else it would
    stay in the queue for ever). `hold`: it starts when it is released.

    Raises:
        JobError: Slurm refuses it; with Slurm's own words.
    """
    options = ["--parsable"]
    if after:
        options += [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
    if hold:
        options.append("--hold")
    code, out, error = _slurm("sbatch", *options, str(script))
    found = re.findall(r"^(\d+)(?:;\S*)?$", out, re.MULTILINE)  # a site's sbatch may say more
    if code and SILENT.search(error):
        raise JobError(
            f"Slurm does not take {script.name}: {_said(error)}",
            hint="again when it answers (`scontrol ping`): ft recipe run --resume RUN",
        )
    if code or not found:
        raise JobError(
            f"Slurm refuses {script.name}: {_said(error or out)}",
            detail=error.strip() if len(error.strip().splitlines()) > 1 else "",  # a site's words
            hint="compare the cluster profile with `sinfo` and your account: `ft cluster check`",
            where=str(script),
        )
    return str(found[-1])


def of_scripts(scripts: Collection[Path]) -> list[str]:
    """The jobs of these batch scripts that wait or run: sbatch may fail when it has submitted.

    Raises:
        JobError: Slurm does not say.
    """
    code, out, error = _slurm("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%o")
    if code:
        raise JobError(f"squeue failed: {_said(error or out)}")
    rows = (line.strip().partition("|") for line in out.splitlines())
    return [identity for identity, _, script in rows if Path(script) in scripts]


def release(job: str) -> None:
    """Let a held job start.

    Raises:
        JobError: Slurm does not.
    """
    code, out, error = _slurm("scontrol", "release", job)
    if code:
        raise JobError(
            f"job {job} cannot be released: {_said(error or out)}",
            hint="`ft recipe run --resume RUN` submits the jobs again",
        )


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; those that have ended do not matter.

    Raises:
        JobError: Slurm cannot.
    """
    if jobs:
        code, out, error = _slurm("scancel", *jobs)
        if code and "Invalid job id" not in error:
            raise JobError(f"scancel failed: {_said(error or out)}")


def requeue(job: str) -> None:
    """Put the running job back into the queue; this ends it.

    Raises:
        JobError: Slurm does not.
    """
    code, out, error = _slurm("scontrol", "requeue", job)
    if code:
        raise JobError(
            f"job {job} cannot be requeued: {_said(error or out)}",
            hint="the site may forbid it; go on with `ft recipe run --resume RUN`",
        )


def look(job: str) -> JobState | None:
    """What Slurm knows of a job: `UNKNOWN` when that is nothing; None when it does not answer.

    Without the controller's word the accounting is not believed: of a job that was requeued it
    may know the end of an earlier start only.
    """
    try:
        code, out, error = _slurm("scontrol", "-o", "show", "job", job)
    except LaunchError:
        return None
    found = [line for line in out.splitlines() if "JobState=" in line]
    if code == 0 and found:
        return _of_controller(job, found[0])
    if "Invalid job id" not in error:
        return None
    return _forgotten(job)


def until_silent() -> Callable[[str], JobState | None]:
    """`look`, which asks about no further job once Slurm has not answered: each takes a minute."""
    silent = False

    def asked(job: str) -> JobState | None:
        nonlocal silent
        state = None if silent else look(job)
        silent = state is None
        return state

    return asked


def _forgotten(job: str) -> JobState:
    """What is kept of a job that the controller does not know any more."""
    for source in ("-X", "-c"):
        with contextlib.suppress(LaunchError):  # there may be no sacct
            code, out, _ = _slurm(
                "sacct", source, "-n", "-P", "-j", job, "--format=JobID,State,ExitCode,NodeList"
            )
            rows = [line.split("|") for line in out.splitlines() if line.count("|") >= 3]
            if code == 0 and rows:  # one row for each time that the job was started
                return _of_accounting(job, rows[-1])
    return JobState(job, UNKNOWN)


def _of_controller(job: str, line: str) -> JobState:
    def value(name: str) -> str:
        found = re.search(rf"(?:^|\s){name}=(\S*)", line)
        return found.group(1) if found else ""

    code, number = _exit(value("ExitCode"))
    restarts = value("Restarts")
    return JobState(
        job,
        value("JobState"),
        value("Reason").replace("None", ""),
        code,
        number,
        value("NodeList").replace("(null)", ""),
        int(restarts) if restarts.isdigit() else 0,
    )


def _of_accounting(job: str, row: Sequence[str]) -> JobState:
    code, number = _exit(row[2])
    nodes = "" if row[3] in ("(null)", "None assigned") else row[3]
    return JobState(job, row[1].split()[0] if row[1] else UNKNOWN, "", code, number, nodes)


def _exit(text: str) -> tuple[int | None, int | None]:
    found = re.match(r"(\d+):(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else (None, None)


def _said(text: str) -> str:
    """Slurm's reason: its last line of errors, without the program's name before it."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    useful = [line for line in lines if "Batch job submission failed" in line] or lines
    reason = useful[-1] if useful else "it gives no reason"
    return re.sub(r"^\w+: (error: )?(Batch job submission failed: )?", "", reason)
