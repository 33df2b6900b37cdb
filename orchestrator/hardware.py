"""What this machine has, asked of the driver without importing torch."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator import shell
from orchestrator.backends.base import Target
from orchestrator.errors import LaunchError
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: name as CUDA_VISIBLE_DEVICES takes it, uuid, model, MiB, compute capability (0.0:
    not known)."""

    index: str
    uuid: str
    name: str
    memory: int
    capability: float


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that CUDA would see, in its order; empty without a driver."""
    found = _installed()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    chosen = []
    for name in (word.strip() for word in visible.split(",")):
        match = next((gpu for gpu in found if name in (gpu.index, gpu.uuid)), None)
        if match is None and name.startswith(("GPU-", "MIG-")) and found:
            match = next((gpu for gpu in found if gpu.uuid.startswith(name)), found[0])
        if match is None:  # CUDA ignores everything behind a name that it does not know
            break
        chosen.append(replace(match, index=name))
    return tuple(chosen)


def _installed() -> tuple[Gpu, ...]:
    """All NVIDIA GPUs of this machine. Old drivers do not tell the compute capability."""
    program = shutil.which("nvidia-smi")
    for fields in ("index,uuid,name,memory.total,compute_cap", "index,uuid,name,memory.total"):
        if program is None:
            break
        argv = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        try:
            code, out, _ = shell.capture(argv, env={"PATH": shell.system_path()}, timeout=20)
        except LaunchError:
            break
        if code == 0:
            rows = [[value.strip() for value in line.split(",")] for line in out.splitlines()]
            return tuple(_gpu(row) for row in rows if len(row) >= 4)
    return ()


def _gpu(row: list[str]) -> Gpu:
    return Gpu(row[0], row[1], row[2], int(_number(row[3])), _number(row[4]) if row[4:] else 0.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # [N/A], [Not Supported]
        return 0.0


def target_for(recipe: Recipe, found: tuple[Gpu, ...]) -> Target:
    """The target of a run of `recipe` on a machine with these GPUs."""
    spread = recipe.distributed
    alone = spread.strategy == "none"
    if not found:
        return Target("cpu", bf16=False, processes=1 if alone else spread.gpus or 1)
    # a GPU that does not say what it can do is taken for one of the last years
    bf16 = min(gpu.capability or 8.0 for gpu in found) >= 8.0
    processes = 1 if alone else spread.gpus or len(found)
    return Target("cuda", bf16=bf16, processes=processes)


def problems(recipe: Recipe, found: tuple[Gpu, ...]) -> Iterator[Finding]:
    """What this machine means: it is one (`FT240`), its GPUs (`FT242`), its compiler (`FT237`).

    DeepSpeed's CPU accelerator pins nothing, so that its disk swapper waits for writes that were
    never begun: "Assertion `_num_pending_ops > 0' failed". With pinned buffers it trains.
    """
    wanted = recipe.distributed.gpus
    if recipe.distributed.nodes > 1:
        yield Finding(
            "FT240",
            "error",
            f"{recipe.distributed.nodes} nodes need a cluster",
            field="distributed.nodes",
            fix="--on CLUSTER (`ft cluster list`), or --set distributed.nodes=1",
        )
    built = next((name for name in ("cpu_adam", "nvme") if getattr(recipe.distributed, name)), "")
    if built and not shutil.which("c++"):
        yield Finding(
            "FT237",
            "error",
            "DeepSpeed builds this part when it starts, and there is no C++ compiler (c++)",
            field=f"distributed.{built}",
            fix="install g++, or load the module that has it",
        )
    if not found and recipe.distributed.nvme:
        yield Finding(
            "FT237",
            "error",
            "without a GPU there is no page-locked memory, and DeepSpeed aborts with a disk",
            field="distributed.nvme",
            fix="leave it out: host memory is used then",
        )
    if not found:
        yield Finding(
            "FT242",
            "warning",
            "no GPU is seen: everything is computed on the CPU, in float32",
            field="distributed",
            fix="run it where there is a GPU, or try it with --smoke",
        )
    elif wanted and recipe.distributed.strategy != "none" and wanted > len(found):
        yield Finding(
            "FT242",
            "error",
            f"{wanted} GPUs are asked for, {len(found)} are seen",
            field="distributed.gpus",
            fix=f"--set distributed.gpus={len(found)}",
        )


def rendering_target(recipe: Recipe) -> Target:
    """The target when a recipe is only rendered: the GPUs that it was written for."""
    spread = recipe.distributed
    return Target(
        "cuda", True, 1 if spread.strategy == "none" else spread.nodes * (spread.gpus or 1)
    )
