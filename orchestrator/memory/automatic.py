"""`distributed.strategy: auto`: the memory plan says how a run is spread over the GPUs."""

from dataclasses import replace

from orchestrator.backends.base import Target
from orchestrator.distributed import batch
from orchestrator.findings import Finding
from orchestrator.memory import fit, lookup
from orchestrator.memory.gpus import GIB, Gpus
from orchestrator.memory.layout import Layout
from orchestrator.memory.model import Architecture, read
from orchestrator.memory.settings import settings
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Distributed, Recipe

FIELD = "distributed.strategy"
OFFLOADED = ("nvme", "cpu_adam")
"""Settings that mean something only where optimizer states are offloaded."""


def choose(
    architecture: Architecture, recipe: Recipe, gpus: Gpus, host: int | None = None
) -> tuple[fit.Choice, Finding]:
    """The layout for a recipe on these GPUs, and the reason in words. Pure.

    Candidates are one GPU or DDP, then ZeRO 1, 2, 3, then ZeRO with offload: the first that fits
    costs the least time. FSDP is left to those who ask for it, since the two backends hold its
    weights in different types (see `precision`). If nothing fits, the one that needs least.
    """
    count = min(recipe.distributed.gpus or gpus.count, gpus.count)
    here = replace(gpus, count=count)
    recipe = batch.settled(recipe, here.total)[0]
    chosen = settings(recipe, architecture, Target("cuda", True, here.total))
    plan = fit.plan(architecture, chosen, Layout("one"), here, host)
    usable = [c for c in plan.choices if not c.refused and c.layout.kind != "fsdp"]
    found = next((c for c in usable if c.fits), None)
    room = f"{here.usable / GIB:.1f} GiB usable"
    if found is None:
        least = min(usable, key=lambda c: c.estimate.total)
        text = f"auto: nothing fits; {_named(least)} comes nearest, with {room}"
        if least.crowded_host:
            text += f", but it needs {least.estimate.host / GIB:.0f} GiB of host memory"
        fix = f"ft plan memory {recipe.name} says what would help"
        return least, Finding("FT244", "warning", text, field=FIELD, fix=fix)
    before = usable[: usable.index(found)]
    why = f"{_named(before[-1])} do not fit in {room}" if before else f"it fits in {room}"
    text = f"auto: {_named(found)} on {here}: {why}"
    return found, Finding("FT244", "note", text, field=FIELD)


def _named(choice: fit.Choice) -> str:
    return f"{choice.layout.name} ({choice.estimate.total / GIB:.1f} GiB per GPU)"


def applied(recipe: Recipe, layout: Layout) -> Recipe:
    """The recipe with a layout in the place of `auto` and of what stood beside it."""
    spread = recipe.distributed
    own = {"strategy", "zero_stage", "offload"}
    values = {name: getattr(spread, name) for name in spread.model_fields_set - own}
    match layout.kind:
        case "zero":
            values |= {"strategy": "deepspeed", "zero_stage": layout.stage}
            values |= {"offload": layout.offload}
        case "one":
            values |= {"strategy": "none", "gpus": None}
        case kind:
            values["strategy"] = kind
    if values.get("offload", "none") == "none":
        values = {name: value for name, value in values.items() if name not in OFFLOADED}
    return recipe.model_copy(update={"distributed": Distributed(**values)})


def settled(
    loaded: Loaded, gpus: Gpus | None, host: int | None, *, network: bool
) -> tuple[Loaded, list[Finding]]:
    """A loaded recipe with `auto` decided for these GPUs, and what was decided.

    Raises:
        BackendEnvironmentError: the model's config cannot be had.
    """
    recipe = loaded.recipe
    if recipe.distributed.strategy != "auto":
        return loaded, []
    if gpus is None:
        note = Finding("FT244", "note", "auto: one process, since no GPU is seen", field=FIELD)
        return replace(loaded, recipe=applied(recipe, Layout("one"))), [note]
    found = lookup.find(recipe, loaded.file.resolve().parent, None, network=network)
    choice, note = choose(read(found.config), recipe, gpus, host)
    return replace(loaded, recipe=applied(recipe, choice.layout)), [note]


def undecided(recipe: Recipe) -> list[Finding]:
    """`auto` in files that are written for no machine: they need it said."""
    if recipe.distributed.strategy != "auto":
        return []
    text = "auto is decided by the GPUs of a run; files that stand alone need it said"
    fix = f"ft plan memory {recipe.name} --gpus 4xA100-40GB names what to --set"
    return [Finding("FT244", "error", text, field=FIELD, fix=fix)]
