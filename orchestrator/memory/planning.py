"""From a recipe to its memory plan: config, settings and GPUs put together."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.base import Target
from orchestrator.hardware import Gpu
from orchestrator.memory import fit, lookup
from orchestrator.memory.gpus import GIB, Gpus
from orchestrator.memory.model import read
from orchestrator.memory.settings import layout, settings
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A plan, the model it is for, and where the model's config is from."""

    base: str
    origin: str
    plan: fit.Plan


def seen(found: tuple[Gpu, ...]) -> Gpus | None:
    """The GPUs of this machine; the smallest decides where they differ. None without any."""
    known = [gpu for gpu in found if gpu.memory > 0]
    if not known:
        return None
    smallest = min(known, key=lambda gpu: gpu.memory)
    return Gpus(len(known), smallest.memory * 2**20, smallest.name)


def host_memory() -> int | None:
    """Bytes of this machine's memory; None where /proc does not tell."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return None


def of_recipe(
    recipe: Recipe, found: lookup.Found, gpus: Gpus | None, *, host: int | None = None
) -> MemoryPlan:
    """The plan of a recipe whose config was found, on these GPUs.

    Without GPUs it is for as many as the recipe names. A recipe that is not spread uses one GPU
    however many there are.
    """
    architecture = read(found.config)
    spread = recipe.distributed
    if gpus is None:
        count, nodes = spread.gpus or 1, spread.nodes
    else:
        count, nodes = min(spread.gpus or gpus.count, gpus.count), gpus.nodes
    own = layout(recipe, count, nodes)
    chosen = settings(recipe, architecture, Target("cuda", True, own.gpus))
    return MemoryPlan(
        recipe.model.base, found.origin, fit.plan(architecture, chosen, own, gpus, host)
    )


def short(memory: MemoryPlan) -> str:
    """One line: what a GPU needs, and whether it has it."""
    plan = memory.plan
    own = plan.own.estimate
    text = f"{own.total / GIB:.1f} GiB per GPU ({own.layout.name})"
    if plan.gpus is None:
        return f"{text}; estimated"
    room = f"{plan.gpus.usable / GIB:.0f} GiB usable"
    if plan.own.fits:
        return f"{text}, {room}: fits"
    smallest = plan.smallest
    way = f"; {smallest.layout.name} would fit" if smallest else ""
    return f"{text}, {room}: does not fit{way}"
