"""A cluster profile: the strict YAML that says how jobs are made on one cluster.

Everything in it ends up in a batch script, so each text has a pattern: what a scheduler or a shell
would read as something else is refused when the profile is loaded, not on a compute node.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from orchestrator.errors import UsageError
from orchestrator.memory.gpus import parse
from orchestrator.recipe.sections.base import Count, Positive, Section


def _form(pattern: str, what: str) -> AfterValidator:
    """A text of one form, with words for the message instead of the pattern."""
    known = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > 4000 or not known.fullmatch(value):
            raise ValueError(f"{value[:60]!r} is not {what}")
        return value

    return AfterValidator(check)


ALL_MEMORY = "0"
"""What Slurm takes for all memory of a node."""

Name = Annotated[
    str, _form(r"[A-Za-z0-9][A-Za-z0-9_.,:@+/-]*", "a name (letters, digits and _.,:@+/- only)")
]
ModuleName = Annotated[
    str, _form(r"[A-Za-z0-9_/.][A-Za-z0-9_.,:@+/~-]*", "a name as `module load` has it")
]
Folder = Annotated[
    str, _form(r"/[^\x00-\x1f]*", "an absolute path; a variable in it is written ${NAME}")
]
Memory = Annotated[
    str, _form(rf"{ALL_MEMORY}|[1-9][0-9]*[KMGT]", "a size like 200G, or 0 for all of a node")
]
TimeLimit = Annotated[
    str,
    _form(
        r"(?=.*[1-9])([0-9]{1,3}-)?[0-9]{1,3}:[0-5][0-9](:[0-5][0-9])?",  # none at all: no limit
        "a time like 8:00:00 or 2-00:00",
    ),
]
VariableName = Annotated[str, _form(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name")]
Value = Annotated[str, _form(r"[^\x00-\x1f]*", "one line of text")]
Option = Annotated[str, _form(r"--[a-z][a-z-]*(=[^\x00-\x1f]+)?", "an option like --reservation=x")]


def _gpu_model(text: str) -> str:
    try:
        parse(text)
    except UsageError as error:
        raise ValueError(error.message.removeprefix("--gpus ")) from error
    return text


GpuModel = Annotated[str, AfterValidator(_gpu_model)]

OWNED_OPTIONS = (
    "array", "chdir", "clusters", "dependency", "error", "export", "export-file", "hold",
    "job-name", "kill-on-invalid-dep", "no-requeue", "nodes", "ntasks", "ntasks-per-node",
    "open-mode", "output", "parsable", "requeue", "signal", "test-only", "time", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that ft gives itself, or that would hide a job from it."""

LATEST_WARNING = 65535
"""Seconds before the limit: `sbatch --signal` takes no more."""

SECRET = re.compile(r"(?i)(^|_)(token|key|password|passwd|secret|credentials)$")


def seconds(limit: str) -> int:
    """A time limit of Slurm's in seconds: `8:00:00`, `1-12:00:00`, `30:00` (minutes), `1-00:00`."""
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) == 2:  # after days it is hours:minutes, else minutes:seconds
        parts = [*parts, 0] if days else [0, *parts]
    hours, minutes, rest = parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def bytes_of(size: str) -> int:
    """A size of Slurm's in bytes: `400G`."""
    return int(size[:-1]) << (10 * ("KMGT".index(size[-1]) + 1))


class BackendPlace(Section):
    """Where a backend is installed on the cluster."""

    prefix: Folder | None = Field(None, description="folder of a conda or venv environment")
    conda: Name | None = Field(None, description="name of a conda environment to activate")

    @model_validator(mode="after")
    def _one_of_both(self) -> "BackendPlace":
        if self.prefix and self.conda:
            raise ValueError("give prefix or conda, not both")
        return self


class EnvironmentPlace(Section):
    """Where ft and the backends find their environments on the cluster."""

    home: Folder | None = Field(
        None, description="FT_HOME on a file system that compute nodes see; default: the caller's"
    )
    axolotl: BackendPlace = Field(BackendPlace(), description="default: the one that ft made")
    llamafactory: BackendPlace = Field(BackendPlace(), description="default: the one that ft made")


class OneTask(Section):
    """Jobs of one task: preprocessing with its gate, merging with the export."""

    partition: Name | None = Field(None, description="default: the one for training")
    qos: Name | None = Field(None, description="default: the one for training")
    cpus: Positive = Field(4, description="CPUs of the task")
    memory: Memory | None = Field(None, description="host memory, like 32G")
    gpus: Count = Field(0, description="GPUs, where a partition gives out nothing without")
    time: TimeLimit = Field("2:00:00", description="time limit of each of these jobs")


class Cluster(Section):
    """One cluster."""

    description: str = Field("", description="what it is, in one line")
    launcher: Literal["slurm"] = Field("slurm", description="who starts jobs")
    partition: Name | None = Field(None, description="partition for training; default: Slurm's")
    account: Name | None = Field(None, description="account or project that pays")
    qos: Name | None = Field(None, description="quality of service")
    nodes: Positive = Field(1, description="nodes of a training that is spread (--nodes)")
    gpus_per_node: Count = Field(1, description="GPUs of a node; 0: train on its CPUs")
    gpu_type: Name | None = Field(None, description="type as Slurm calls it, where it must be said")
    gpu: GpuModel | None = Field(
        None, description="model and memory, for the memory plan, like A100-40GB"
    )
    bf16: bool = Field(True, description="the GPUs compute in bfloat16 (Ampere and newer)")
    cpus_per_node: Positive | None = Field(None, description="CPUs for training on a node")
    memory: Memory | None = Field(None, description="host memory of a node, like 400G")
    time: TimeLimit = Field("24:00:00", description="time limit of training (--time)")
    warn_before: Positive = Field(
        600,
        le=LATEST_WARNING,
        description="seconds before the limit at which training saves a checkpoint and ends",
    )
    requeue: Count = Field(
        3, description="how often training may go on in the queue after a limit or preemption"
    )
    one_task: OneTask = Field(OneTask(), description="jobs of one task")
    modules: Annotated[tuple[ModuleName, ...], Strict(False)] = Field(
        (), description="modules to load"
    )
    module_init: Folder | None = Field(
        None, description="file that defines `module`, where it is in none of the usual places"
    )
    environment: EnvironmentPlace = Field(EnvironmentPlace(), description="environments")
    exports: dict[VariableName, Value] = Field(
        {}, description="variables of every job; ${NAME} is the job's own variable"
    )
    scratch: Folder | None = Field(
        None, description="shared folder for caches, temporary files and prepared data"
    )
    offline: bool = Field(False, description="compute nodes reach no network")
    sbatch: Annotated[tuple[Option, ...], Strict(False)] = Field(
        (), description="further options, one #SBATCH line each: --reservation=x"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Cluster":
        for option in self.sbatch:
            name = option[2:].partition("=")[0]
            owned = [known for known in OWNED_OPTIONS if known.startswith(name)]
            if owned:  # sbatch takes the beginning of a name for the whole
                raise ValueError(
                    f"--{owned[0]} in sbatch: ft gives this option itself, or cannot do with it"
                )
        for name in self.exports:
            if SECRET.search(name):
                raise ValueError(f"exports.{name}: a secret belongs into your environment")
            if name.startswith("FT_"):
                raise ValueError(f"exports.{name}: ft's own; `environment` says where things are")
        if self.requeue and seconds(self.time) <= self.warn_before:
            raise ValueError(
                f"warn_before ({self.warn_before} s) leaves nothing of time ({self.time})"
            )
        return self

    def place(self, backend: str) -> BackendPlace:
        """Where a backend is installed here."""
        place: BackendPlace = getattr(self.environment, backend)
        return place
