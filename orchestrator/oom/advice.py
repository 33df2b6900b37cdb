"""What to do about a shortage, as settings of the recipe that failed."""

from collections.abc import Iterator

from orchestrator.backends.base import Target
from orchestrator.oom.ladder import single_steps
from orchestrator.oom.shortage import Kind
from orchestrator.recipe.models import Recipe

MACHINE: dict[Kind, str] = {
    "host": "a machine, or a limit of the job, with more memory",
    "killed": "a machine, or a limit of the job (memory in the cluster profile), with more memory",
    "workers": "a machine, or a limit of the job, with more memory",
    "shared": "a larger /dev/shm (docker run --shm-size=8g, or --ipc=host)",
    "pinned": "a higher limit for locked memory (`ulimit -l unlimited`)",
    "kernel": "a GPU of another generation; the batch has nothing to do with it",
}


def advice(recipe: Recipe, kind: Kind, target: Target, nodes: int = 1) -> str:
    """One way per line: first those that keep the result, then those that change it."""
    lines = [
        f"{' '.join(f'--set {setting}' for setting in step.settings)}  ({step.reason})"
        for step in single_steps(recipe, kind, target, nodes)
    ]
    return "\n".join([*lines, *_further(recipe, kind, target), *_machine(kind)])


def _further(recipe: Recipe, kind: Kind, target: Target) -> Iterator[str]:
    """What changes the result, or the machine's load, and so is nobody's choice but the user's."""
    spread = recipe.distributed
    if kind == "kernel":
        if recipe.kernels.liger or recipe.kernels.cut_cross_entropy:
            yield "--set kernels.liger=false --set kernels.cut_cross_entropy=false"
        if recipe.model.attention != "sdpa":
            yield "--set model.attention=sdpa"
        return
    if kind in ("host", "killed", "pinned") and spread.offload != "none":
        yield "--set distributed.offload=none  (offload is what fills the machine's memory)"
    if kind == "gpu" or (target.device == "cpu" and kind in ("host", "killed")):
        shorter = recipe.data.sequence_length // 2
        yield f"--set data.sequence_length={shorter}  (rows that are longer are cut or left out)"
    if kind == "gpu":
        if recipe.adapter.type == "none":
            yield "--set adapter.type=lora  (trains less: the result is another)"
        elif recipe.adapter.type == "lora" and recipe.model.quantization == "none":
            yield "--set model.quantization=nf4  (QLoRA)"
        if target.processes == 1 and spread.strategy == "none":
            yield "more GPUs: --set distributed.strategy=auto chooses how they share the model"


def elsewhere(kind: Kind) -> str:
    """What helps a stage that trains nothing."""
    return MACHINE.get(kind, "a GPU with more memory, or nothing else on this one")


def _machine(kind: Kind) -> Iterator[str]:
    if kind in MACHINE:
        yield MACHINE[kind]
