"""Batch scripts and commands for Slurm, as text. Pure: no disk, clock, environment or process.

A run is a chain of jobs, each of which calls ft for its stages, so that gates, resuming and the
record are the same as on one machine: `prepare` (preprocess and the gate, one task), `train` (all
nodes) and `finish` (merge and export, one task). Fetching is done before, on the login node.
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator import shell
from orchestrator.clusters import prelude
from orchestrator.clusters.profile import Cluster

if TYPE_CHECKING:
    from orchestrator.plan import Plan, StageName

Option = tuple[str, str]

CHAIN: "dict[str, tuple[StageName, ...]]" = {
    "prepare": ("preprocess", "inspect"),
    "train": ("train",),
    "finish": ("merge", "export"),
}
"""The jobs of a run and their stages, in order."""

TASK = (
    'exec "$0" -m torch.distributed.run --nnodes="$SLURM_NNODES" --node-rank="$SLURM_NODEID" '
    '--master-addr="$SLURM_LAUNCH_NODE_IPADDR" --master-port="$FT_MASTER_PORT" --max-restarts=0 '
    '"$@"'
)
"""One node's launcher. Its rank is known in the task only; in the batch script it is always 0.

The rendezvous is static, since with c10d any node may become rank 0 (seen on two nodes), and rank 0
writes the events and checkpoints. srun is called from the first node, so the address that it was
called from is rank 0's, and one that Slurm itself reaches from all nodes: no name lookup.
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """What job scripts depend on besides plan and profile."""

    python: str
    home: str
    time: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a chain."""

    name: str
    stages: "tuple[StageName, ...]"
    script: str


def train_command(
    python: str,
    script: str,
    request: str,
    *,
    nodes: int,
    processes: int,
    elastic: bool,
    cpus: int | None,
    id: str,
) -> tuple[str, ...]:
    """The argument list that trains on all nodes of a job, run by ft on the first of them.

    One srun step with a launcher per node; torch's elastic launcher starts the processes of the
    node. On one node it meets itself on a port that the system chose (`localhost:0`); on several
    the port is in `FT_MASTER_PORT`, which ft chooses in the job (`rendezvous.port`).
    """
    step = (
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        *(() if cpus is None else (f"--cpus-per-task={cpus}",)),
        "--kill-on-bad-exit=1", "--export=ALL", "--input=none",
        *(("--label",) if nodes > 1 else ()),
    )  # fmt: skip
    per_node = f"--nproc-per-node={processes // nodes}"
    if nodes > 1:
        return (*step, "bash", "-c", TASK, python, per_node, script, request)
    if processes == 1 and not elastic:
        return (*step, python, script, request)
    return (
        *step, python, "-m", "torch.distributed.run", "--nnodes=1", "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0", f"--rdzv-id={id}", "--max-restarts=0", per_node,
        script, request,
    )  # fmt: skip


def chain(
    plan: "Plan", cluster: Cluster, submission: Submission, done: Collection[str] = ()
) -> tuple[Job, ...]:
    """The jobs of a run for what is not `done`; each waits for the one before it to end well."""
    there = {stage.name for stage in plan.stages if stage.name not in done}
    jobs = []
    for name, stages in CHAIN.items():
        wanted = tuple(stage for stage in stages if stage in there)
        if wanted:
            jobs.append(Job(name, wanted, script(plan, cluster, submission, name)))
    return tuple(jobs)


def script(plan: "Plan", cluster: Cluster, submission: Submission, name: str) -> str:
    """The batch script of one job."""
    layout, recipe = plan.layout, plan.recipe
    options: list[Option] = [
        ("job-name", f"ft-{name}-{recipe.name}"),
        ("output", str(layout.log(f"slurm-{name}")).replace("%", "%%")),
        ("open-mode", "append"),
    ]
    if name == "train":
        context = plan.context
        each = context.target.processes // context.nodes
        gpus = each if context.target.device == "cuda" else 0
        options += training_options(cluster, context.nodes, submission.time, gpus)
        options.append(("signal", f"B:USR1@{cluster.warn_before}"))
    else:
        options += one_task_options(cluster)
    options.append(("requeue", "") if cluster.requeue else ("no-requeue", ""))
    given = {"FT_HOME": submission.home, **submission.variables}
    call = [submission.python, "-I", "-m", "orchestrator.cli.main", "job", str(layout.root), name]
    return "\n".join(
        [
            "#!/bin/bash",
            *directives(options),
            "",
            "# shellcheck disable=SC2016  # what is in single quotes is meant as it stands",
            "# The warning before the time limit is for ft, and would end the script before that.",
            "trap '' USR1",
            *prelude.lines(cluster, recipe.backend, given),
            f"exec {shell.shown(call)}",
            "",
        ]
    )


def training_options(
    cluster: Cluster, nodes: int, time: str, gpus: int | None = None
) -> list[Option]:
    """What a training job asks for; `gpus` of each node, by default all."""
    given = cluster.gpus_per_node if gpus is None else gpus
    return [
        *_place(cluster, cluster.partition, cluster.qos),
        ("nodes", str(nodes)),
        ("ntasks-per-node", "1"),
        *_some("gpus-per-node", _gpus(cluster, given)),
        *_some("cpus-per-task", cluster.cpus_per_node),
        *_some("mem", cluster.memory),
        ("time", time),
        *_extra(cluster),
    ]


def one_task_options(cluster: Cluster) -> list[Option]:
    """What a job of one task asks for."""
    task = cluster.one_task
    return [
        *_place(cluster, task.partition or cluster.partition, task.qos or cluster.qos),
        ("nodes", "1"),
        ("ntasks-per-node", "1"),
        *_some("gpus-per-node", _gpus(cluster, task.gpus)),
        ("cpus-per-task", str(task.cpus)),
        *_some("mem", task.memory),
        ("time", task.time),
        *_extra(cluster),
    ]


def _place(cluster: Cluster, partition: str | None, qos: str | None) -> list[Option]:
    return [
        *_some("partition", partition),
        *_some("account", cluster.account),
        *_some("qos", qos),
    ]


def _gpus(cluster: Cluster, count: int) -> str | None:
    if not count:
        return None
    return f"{cluster.gpu_type}:{count}" if cluster.gpu_type else str(count)


def _some(name: str, value: str | int | None) -> list[Option]:
    return [] if value is None else [(name, str(value))]


def _extra(cluster: Cluster) -> list[Option]:
    found = []
    for option in cluster.sbatch:
        name, _, value = option.removeprefix("--").partition("=")
        found.append((name, value))
    return found


def written(option: Option) -> str:
    """An option as one would type it."""
    name, value = option
    return f"--{name}={shlex.quote(value)}" if value else f"--{name}"


def directives(options: Sequence[Option]) -> list[str]:
    """The #SBATCH lines; in them a backslash means something to sbatch within any quotes."""
    return [f"#SBATCH {written(option)}".replace("\\", "\\\\") for option in options]


KEPT = (
    "HOME", "USER", "LOGNAME", "LANG", "TZ", "TERM", "SHELL", "MODULEPATH",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SLURM_CONF",
    "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "HF_TOKEN", "HF_ENDPOINT",
)  # fmt: skip
"""What a job gets of the submitting shell: who and where, and secrets, which no file may hold."""


PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
"""Slurm's own, which a login node has and a job calls."""

SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


def submit_environment(environ: Mapping[str, str], folders: Collection[str]) -> dict[str, str]:
    """The environment of every Slurm command; `folders` are where Slurm's programs are.

    sbatch hands its whole environment on to the job. Without this, modules and variables that
    happen to be loaded in the user's shell would be in the job today and be missing tomorrow.
    """
    kept = {
        name: value for name, value in environ.items() if name in KEPT or name.startswith("LC_")
    }
    return {**kept, "PATH": ":".join(dict.fromkeys([*folders, *SYSTEM_PATH]))}
