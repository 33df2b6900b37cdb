"""From a recipe to its memory plan: config, settings and GPUs put together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.backends.base import Target
from orchestrator.distributed import batch
from orchestrator.errors import UsageError
from orchestrator.hardware import Gpu
from orchestrator.memory import automatic, fit, lookup
from orchestrator.memory.gpus import GIB, Gpus
from orchestrator.memory.layout import layout
from orchestrator.memory.model import read
from orchestrator.memory.settings import settings
from orchestrator.plan import Plan
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A plan, the model it is for, where its config is from, and why `auto` chose what it did."""

    base: str
    origin: str
    plan: fit.Plan
    reason: str = ""


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
    recipe: Recipe,
    found: lookup.Found,
    on: Gpus | None,
    *,
    host: int | None = None,
    deepspeed: Mapping[str, Any] | None = None,
) -> MemoryPlan:
    """The plan of a recipe whose config was found, on these GPUs.

    `deepspeed` is the user's own configuration. Without GPUs the plan is for as many as the recipe
    names. A recipe that is not spread uses one GPU however many there are.
    """
    architecture = read(found.config)
    reason = ""
    if recipe.distributed.strategy == "auto" and on is not None:
        decided, note = automatic.choose(architecture, recipe, on, host)
        recipe, reason = automatic.applied(recipe, decided.layout), note.message
    spread = recipe.distributed
    if on is None:
        count, nodes = spread.gpus or 1, spread.nodes
    else:
        count, nodes = min(spread.gpus or on.count, on.count), on.nodes
        on = replace(on, count=count)
    own = layout(recipe, count, nodes, deepspeed)
    recipe = batch.settled(recipe, own.gpus)[0]
    chosen = settings(recipe, architecture, Target("cuda", True, own.gpus))
    return MemoryPlan(
        recipe.model.base, found.origin, fit.plan(architecture, chosen, own, on, host), reason
    )


def on_any_number(recipe: Recipe) -> Recipe:
    """The recipe without its number of GPUs, where another one is given."""
    spread = recipe.distributed.model_copy(update={"gpus": None})
    return recipe.model_copy(update={"distributed": spread})


def of_plan(plan: Plan, on: Gpus | None, host: int | None = None) -> MemoryPlan | None:
    """The memory plan beside the plan of a run; None for a smoke run or an unknown model.

    Without a network: the config is the local model's, the cache's or the table's.
    """
    if plan.context.smoke:
        return None
    recipe, base = plan.recipe, plan.context.base
    if base:
        model = recipe.model.model_copy(update={"base": base})
        recipe = recipe.model_copy(update={"model": model})
    found = lookup.offline(recipe, Path.cwd())
    try:
        own = plan.context.deepspeed
        return of_recipe(recipe, found, on, host=host, deepspeed=own) if found else None
    except UsageError:  # a config of something else than a language model
        return None


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
