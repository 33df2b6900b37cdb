"""A run as a chain of jobs: prepare this process for the cluster, write scripts, submit them.

Only one `ft` writes the record at a time: the first job is held until all ids are in `run.json`,
then the jobs write, one after another, and what looks at a run writes only once no job will.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.clusters import prelude
from orchestrator.clusters.check import activated
from orchestrator.clusters.site import Site
from orchestrator.environments.home import home
from orchestrator.environments.registry import variable
from orchestrator.errors import FtError, RunInterrupted, UsageError
from orchestrator.files import write_atomic
from orchestrator.interrupts import interrupts_later
from orchestrator.launchers import queue, slurm
from orchestrator.plan import Plan
from orchestrator.runs.jobs import none_active
from orchestrator.runs.lock import locked
from orchestrator.runs.record import Record


def enter(site: Site, backend: str, *, activate: bool = True) -> None:
    """Make this process (on the login node) look where the jobs will: caches, FT_HOME, prefix.

    Raises:
        LaunchError: modules or environment of the profile cannot be used here.
    """
    cluster = site.cluster
    if cluster.scratch and "HF_TOKEN_PATH" not in os.environ:
        hub = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
        os.environ["HF_TOKEN_PATH"] = str(hub / "token")  # a login stays valid in another HF_HOME
    os.environ.update(prelude.caches(cluster))
    if cluster.offline:
        os.environ.setdefault("WANDB_MODE", "offline")
    if cluster.environment.home:
        os.environ["FT_HOME"] = cluster.environment.home
    place = cluster.place(backend)
    if place.prefix:
        os.environ[variable(backend)] = place.prefix
    elif place.conda and activate:
        os.environ[variable(backend)] = activated(cluster, backend)


def submission(site: Site, backend: str) -> slurm.Submission:
    """What the scripts must know of this process."""
    place, name = site.cluster.place(backend), variable(backend)
    given = {}
    if name in os.environ and not (place.prefix or place.conda):
        given[name] = os.environ[name]
    if "HF_TOKEN_PATH" in os.environ:  # where a login is: the script sets another HF_HOME
        given["HF_TOKEN_PATH"] = os.environ["HF_TOKEN_PATH"]
    return slurm.Submission(sys.executable, str(home()), site.time_limit, given)


def jobs(planned: Plan, site: Site, done: tuple[str, ...] = ()) -> tuple[slurm.Job, ...]:
    """The chain of a plan."""
    made = submission(site, planned.recipe.backend)
    return slurm.chain(planned, site.cluster, made, done)


def submit(planned: Plan, record: Record, site: Site) -> list[dict[str, Any]]:
    """Submit what is not done yet, and record it; nothing, when all is done.

    Raises:
        JobError: Slurm refuses a job; those before it are cancelled.
        RunInterrupted: Ctrl-C, SIGTERM or a closed terminal; as above.
        UsageError: another ft has submitted it meanwhile.
    """
    layout = record.layout
    done = tuple(s.name for s in planned.stages if layout.marker(s.name).is_file())
    chain = jobs(planned, site, done)
    if not chain:
        return []
    with interrupts_later() as due, locked(layout):
        record.reread()
        none_active(record)
        (layout.root / "logs").mkdir(exist_ok=True)
        for job in chain:
            write_atomic(layout.script(job.name), job.script)
        record.update(
            status="queued",
            error=None,
            exit_code=None,
            jobs=[],
            cluster={
                "name": site.name,
                "time": site.time_limit,
                "profile": site.cluster.model_dump(mode="json"),
            },
        )
        return _submit_chain(record, chain, due)


def _submit_chain(
    record: Record, chain: tuple[slurm.Job, ...], due: Callable[[], None]
) -> list[dict[str, Any]]:
    submitted: list[dict[str, Any]] = []
    try:
        for job in chain:
            before = submitted[-1]["id"] if submitted else None
            identity = queue.submit(
                record.layout.script(job.name), after=before, hold=before is None
            )
            submitted.append(
                {
                    "name": job.name,
                    "id": identity,
                    "stages": list(job.stages),
                    "log": str(record.layout.log(f"slurm-{job.name}")),
                }
            )
            record.update(jobs=submitted)
            due()
        queue.release(submitted[0]["id"])
    except FtError as error:
        _withdraw(record, submitted, chain, error, "failed")
        raise
    except KeyboardInterrupt as error:
        interrupted = RunInterrupted(
            "interrupted: the jobs that were submitted are cancelled",
            hint=f"go on with: ft recipe run --resume {record.layout.root}",
        )
        _withdraw(record, submitted, chain, interrupted, "cancelled")
        raise interrupted from error
    return submitted


def _withdraw(
    record: Record,
    submitted: list[dict[str, Any]],
    chain: tuple[slurm.Job, ...],
    error: FtError,
    status: str,
) -> None:
    """Take a chain that is not whole out of the queue, and record why.

    Where that fails too, nothing runs: the first job is held, and the others wait for it.
    """
    layout = record.layout
    identities = [entry["id"] for entry in submitted]
    try:
        with contextlib.suppress(FtError):
            found = queue.of_scripts([layout.script(job.name) for job in chain])
            identities = list(dict.fromkeys([*identities, *found]))
        queue.cancel(identities)
    except FtError as failure:
        left = (
            f"{failure.message}: the jobs {', '.join(identities)} are still in the queue, held, "
            f"until `ft runs cancel {layout.id}`"
        )
        error.hint = "\n".join(filter(None, (error.hint, left)))
        return
    record.update(status=status, error=error.message, exit_code=int(error.exit_code))


def site_of(record: Record) -> Site | None:
    """The cluster that a run was submitted to, as its profile was then.

    Raises:
        UsageError: this release of ft refuses that profile.
    """
    from pydantic import ValidationError

    from orchestrator.clusters.profile import Cluster

    known = record.document.get("cluster")
    if not isinstance(known, dict):
        return None
    try:
        profile = Cluster.model_validate(known["profile"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{record.layout.id} has a profile that this ft does not take: {field}: {first['msg']}",
            hint=f"ft recipe run --resume {record.layout.id} --on {known['name']} submits what is "
            "left by the profile as it is now",
        ) from error
    return Site(known["name"], profile, time=known["time"])


def temporary() -> Path | None:
    """The job's own temporary folder, which nobody else uses; None outside of a job."""
    job, folder = os.environ.get("SLURM_JOB_ID"), os.environ.get("TMPDIR", "")
    return Path(folder) if job and folder.endswith(f"/tmp/{job}") else None
