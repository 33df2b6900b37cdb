"""What a recipe leaves open and the place where it runs decides.

The strategy of `auto`, the accumulation of an effective batch, how layers are recomputed, how many
processes there are: after this a recipe means the same whoever reads it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import hardware
from orchestrator.backends.base import Target
from orchestrator.checks import placed
from orchestrator.clusters.site import Site
from orchestrator.distributed import batch, checkpointing, fsdp, own_file
from orchestrator.findings import Finding
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Recipe
from orchestrator.runs.pace import earlier


def for_processes(
    recipe: Recipe, processes: int, own: Mapping[str, Any] | None
) -> tuple[Recipe, list[Finding]]:
    """What follows from the number of processes and from the DeepSpeed file, if there is one."""
    recipe, first = batch.settled(recipe, processes)
    recipe, second = checkpointing.settled(recipe, own)
    return recipe, [*first, *second]


def _whole(recipe: Recipe) -> Iterator[Finding]:
    """A run that could only end with a model in parts is not begun."""
    field = fsdp.in_parts(recipe)
    if field:
        text = "this run would end with a model in parts, which it cannot check, merge or export"
        yield Finding("FT215", "error", text, field=field, fix=f"--set {field}=FULL_STATE_DICT")


def _precision(recipe: Recipe, target: Target, own: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What of a DeepSpeed file is changed because of what this machine computes in."""
    if own is None or recipe.model.dtype != "auto":
        return
    for change in own_file.patched(recipe, own, target.dtype("auto"))[1]:
        if change.key.endswith(".enabled") and change.before not in (None, "auto"):
            text = f"the run's copy of the file: {change}"
            yield Finding("FT234", "note", text, field="distributed.deepspeed_file")


@dataclass(frozen=True, slots=True)
class Settled:
    """A recipe with nothing left open, the machine that it was decided for, and what was said."""

    loaded: Loaded
    target: Target
    gpus: tuple[hardware.Gpu, ...]
    findings: tuple[Finding, ...]


def settle(loaded: Loaded, site: Site | None, *, offline: bool) -> Settled:
    """Decide for this machine, or for a cluster.

    Raises:
        BackendEnvironmentError: `auto` needs the model's config, which cannot be had.
        UsageError: `auto` needs the cluster's GPUs, which its profile does not say; or the
            DeepSpeed file cannot be read.
    """
    seen = () if site else hardware.gpus()
    found: list[Finding] = []
    if loaded.recipe.distributed.strategy == "auto":
        from orchestrator.memory import automatic, planning

        gpus = site.gpus(loaded.recipe) if site else planning.seen(seen)
        host = site.host_memory if site else planning.host_memory()
        loaded, found = automatic.settled(loaded, gpus, host, network=not offline)
    target = site.target(loaded.recipe) if site else hardware.target_for(loaded.recipe, seen)
    own = own_file.of_recipe(loaded.recipe, loaded.file.resolve().parent)
    recipe, said = for_processes(loaded.recipe, target.processes, own)
    loaded = replace(loaded, recipe=recipe)
    found += [*said, *_precision(recipe, target, own), *_whole(recipe)]
    if site:
        found += site.problems(recipe, earlier(recipe, site.name, target.processes))
    else:
        found += hardware.problems(recipe, seen)
    return Settled(loaded, target, seen, tuple(placed(found, loaded)))
