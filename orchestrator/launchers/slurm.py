"""Batch scripts and commands for Slurm, as text. Pure: no disk, clock, environment or process.

A run is a chain of jobs, each of which calls ft for its stages, so that gates, resuming and the
record are the same as on one machine: `prepare` (preprocess and the gate, one task), `train` (all
nodes) and `finish` (merge and export, one task). Fetching is done before, on the login node.
"""

import shlex
from collections.abc import Mapping

from orchestrator import shell
from orchestrator.clusters.profile import Cluster, OneTask

Option = tuple[str, str]


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
    task: OneTask = cluster.one_task
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
    """An option as sbatch reads it, on a command line and behind #SBATCH."""
    name, value = option
    return f"--{name}={shlex.quote(value)}" if value else f"--{name}"


def directives(options: list[Option]) -> list[str]:
    """The #SBATCH lines."""
    return [f"#SBATCH {written(option)}" for option in options]


KEPT = (
    "HOME", "USER", "LOGNAME", "LANG", "TZ", "TERM", "SHELL", "PATH", "MODULEPATH",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SLURM_CONF",
    "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "HF_TOKEN", "HF_ENDPOINT",
)  # fmt: skip
"""What a job gets of the submitting shell: who and where, and secrets, which no file may hold."""


def submit_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of every Slurm command.

    sbatch hands its whole environment on to the job. Without this, modules and variables that
    happen to be loaded in the user's shell would be in the job today and be missing tomorrow.
    """
    kept = {name: value for name, value in environ.items() if name in KEPT}
    kept |= {name: value for name, value in environ.items() if name.startswith("LC_")}
    return {"PATH": shell.system_path(), **kept}
