"""What this machine has, asked of the driver without importing torch."""

import os
import shutil
from dataclasses import dataclass

from orchestrator import shell
from orchestrator.backends.base import Target
from orchestrator.errors import LaunchError
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class Gpu:
    """One visible GPU: index as CUDA_VISIBLE_DEVICES takes it, name, MiB, compute capability."""

    index: str
    name: str
    memory: int
    capability: float


def gpus() -> tuple[Gpu, ...]:
    """The visible NVIDIA GPUs; empty without a driver."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not program or visible == "":
        return ()
    query = "--query-gpu=index,name,memory.total,compute_cap"
    try:
        code, out, _ = shell.capture(
            [program, query, "--format=csv,noheader,nounits"],
            env={"PATH": shell.system_path()},
            timeout=20,
        )
    except LaunchError:
        return ()
    found = []
    for line in out.splitlines() if code == 0 else ():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[2].isdigit():
            found.append(Gpu(fields[0], fields[1], int(fields[2]), float(fields[3] or 0)))
    if visible is None:
        return tuple(found)
    wanted = [name.strip() for name in visible.split(",")]
    if not all(name.isdigit() for name in wanted):  # UUIDs: the count is all we need
        return tuple(found[: len(wanted)])
    return tuple(gpu for gpu in found if gpu.index in wanted)


def target_for(recipe: Recipe, found: tuple[Gpu, ...]) -> Target:
    """The target of a run of `recipe` on a machine with these GPUs."""
    spread = recipe.distributed
    alone = spread.strategy == "none"
    if not found:
        return Target("cpu", bf16=False, processes=1 if alone else spread.gpus or 1)
    bf16 = min(gpu.capability for gpu in found) >= 8.0
    processes = 1 if alone else spread.gpus or len(found)
    return Target("cuda", bf16=bf16, processes=processes)


def rendering_target(recipe: Recipe) -> Target:
    """The target when a recipe is only rendered: the GPUs that it was written for."""
    spread = recipe.distributed
    return Target("cuda", True, 1 if spread.strategy == "none" else spread.gpus or 1)
