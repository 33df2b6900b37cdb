"""What to change after an out-of-memory error, one rung after the other. Pure.

A rung keeps the effective batch (micro batch x accumulation x processes), the seed and the order
of the data, and so what is learned. Rungs that do not apply, or that the checks refuse, are left
out. Each one lowers what a process must hold, so the climb ends.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.backends.base import Target
from orchestrator.checks import look
from orchestrator.distributed import batch, checkpointing
from orchestrator.findings import errors_of
from orchestrator.oom.shortage import Kind
from orchestrator.recipe.models import Recipe

Changes = Mapping[str, Any]
Rung = Callable[[Recipe, Target, int], Iterator[tuple[Changes, str]]]


@dataclass(frozen=True, slots=True)
class Step:
    """One change: the recipe with it, the fields that are different, and the reason in words."""

    recipe: Recipe
    changes: Changes
    reason: str

    @property
    def settings(self) -> tuple[str, ...]:
        """The changes as one would `--set` them."""
        words = {None: "null", True: "true", False: "false"}
        return tuple(
            f"{field}={words[value] if value is None or isinstance(value, bool) else value}"
            for field, value in self.changes.items()
        )


def smaller_batch(recipe: Recipe, target: Target, nodes: int) -> Iterator[tuple[Changes, str]]:
    """Fewer rows at once, in more passes: by the smallest factor, so that nothing is left over."""
    training = recipe.training
    rows, evaluated = training.micro_batch_size, training.eval_batch_size or 1
    factor = next((n for n in range(2, rows + 1) if rows % n == 0), 1)
    if factor == 1 and evaluated == 1:
        return
    fewer = rows // factor
    changes: dict[str, Any] = {}
    if factor > 1:
        changes["training.micro_batch_size"] = fewer
        changes["training.gradient_accumulation"] = training.gradient_accumulation * factor
    if evaluated > fewer:
        changes["training.eval_batch_size"] = fewer
    same = batch.of(recipe, target.processes).effective
    if factor == 1:
        yield changes, f"evaluation of {fewer} row at a time instead of {evaluated}"
        return
    yield changes, f"micro batch {fewer} instead of {rows}; a step still has {same} rows"


def recompute(recipe: Recipe, target: Target, nodes: int) -> Iterator[tuple[Changes, str]]:
    """Activations are computed again in the backward pass instead of being kept."""
    if not recipe.training.gradient_checkpointing:
        changes: dict[str, Any] = {"training.gradient_checkpointing": True}
        unknown = recipe.distributed.deepspeed_file and recipe.adapter.type == "lora"
        if unknown or checkpointing.breaks(changed(recipe, changes)):
            changes["training.reentrant"] = True
        yield changes, "activations are computed twice, not kept"


def load_in_process(recipe: Recipe, target: Target, nodes: int) -> Iterator[tuple[Changes, str]]:
    """Batches are loaded by the training process itself."""
    training = recipe.training
    if training.loader_workers:
        fields = ("loader_prefetch", "loader_persistent")
        off = {f"training.{name}": None for name in fields if getattr(training, name) is not None}
        yield {"training.loader_workers": 0, **off}, "no further processes that load batches"


def shard(recipe: Recipe, target: Target, nodes: int) -> Iterator[tuple[Changes, str]]:
    """ZeRO-2, then ZeRO-3: each of several processes holds a part."""
    if target.processes == 1:
        return
    words = {2: "optimizer states and gradients are shared out", 3: "the weights are, too"}
    held = recipe.distributed.offload
    for stage in range(max(2, _zero_stage(recipe) + 1), 4):
        yield _zero(recipe, target, nodes, stage, held), f"ZeRO-{stage}: {words[stage]}"


def offload(recipe: Recipe, target: Target, nodes: int) -> Iterator[tuple[Changes, str]]:
    """Optimizer states, then weights too, are held in the machine's memory."""
    spread, stage = recipe.distributed, _zero_stage(recipe)
    if spread.strategy == "fsdp" and spread.offload == "none" and spread.fsdp is None:
        yield {"distributed.offload": "all"}, "FSDP holds what it can in the machine's memory"
    if spread.offload == "none" and stage <= 2:
        reason = "optimizer states are held in the machine's memory"
        yield _zero(recipe, target, nodes, 2, "optimizer"), f"ZeRO-2 with offload: {reason}"
    if spread.offload != "all" and stage <= 3:
        reason = "weights and optimizer states are held in the machine's memory"
        yield _zero(recipe, target, nodes, 3, "all"), f"ZeRO-3 with offload: {reason}"


def _zero_stage(recipe: Recipe) -> int:
    """The stage in use, 0 for none; 4 for what must be left alone: FSDP, a file of one's own."""
    spread = recipe.distributed
    if spread.strategy == "fsdp" or spread.deepspeed_file:
        return 4
    return spread.zero_stage if spread.strategy == "deepspeed" else 0


def _zero(recipe: Recipe, target: Target, nodes: int, stage: int, held: str) -> Changes:
    """The fields of a ZeRO stage; the number of processes stays what it was."""
    changes: dict[str, Any] = {"distributed.strategy": "deepspeed", "distributed.zero_stage": stage}
    if recipe.distributed.offload != held:
        changes["distributed.offload"] = held
    if recipe.distributed.strategy == "none":
        changes["distributed.gpus"] = target.processes // max(nodes, 1)
    if checkpointing.breaks(changed(recipe, changes)):
        changes["training.reentrant"] = True
    return changes


def rungs(kind: Kind, device: str) -> tuple[Rung, ...]:
    """What helps, by where memory was missing.

    On a CPU everything is in the machine's memory, which ZeRO shares out between processes but
    offload does not relieve. On a GPU the machine's memory holds batches and what was offloaded.
    """
    gpu = device == "cuda"
    match kind:
        case "gpu":
            return (smaller_batch, recompute, shard, offload)
        case "host" | "killed":
            return (load_in_process, smaller_batch) if gpu else (
                load_in_process, smaller_batch, recompute, shard)  # fmt: skip
        case "workers":
            return (load_in_process, smaller_batch)
        case "shared":
            return (load_in_process,)
        case "pinned" | "kernel":
            return ()


def next_step(recipe: Recipe, kind: Kind, target: Target, nodes: int = 1) -> Step | None:
    """The next rung that this recipe can take; None at the top."""
    known = _errors(recipe)
    for rung in rungs(kind, target.device):
        for changes, reason in rung(recipe, target, nodes):
            found = changed(recipe, changes)
            if _errors(found) <= known:
                return Step(found, changes, reason)
    return None


def climb(
    recipe: Recipe,
    kind: Kind,
    target: Target,
    nodes: int = 1,
    *,
    fits: Callable[[Recipe], bool | None] = lambda recipe: None,
) -> Step | None:
    """The next step that is worth a try: those that the memory plan says cannot fit are passed by.

    The top is never passed by, since a plan is an estimate and nothing is left to try above it.
    """
    step = next_step(recipe, kind, target, nodes)
    while step and fits(step.recipe) is False:
        higher = next_step(step.recipe, kind, target, nodes)
        if higher is None:
            break
        changes = {**step.changes, **higher.changes}
        reason = f"{higher.reason} (less does not fit, says the memory plan)"
        step = Step(higher.recipe, changes, reason)
    return step


def single_steps(recipe: Recipe, kind: Kind, target: Target, nodes: int = 1) -> list[Step]:
    """The first possible change of each rung, each on its own."""
    known, steps = _errors(recipe), list[Step]()
    for rung in rungs(kind, target.device):
        candidates = (Step(changed(recipe, c), c, why) for c, why in rung(recipe, target, nodes))
        step = next((s for s in candidates if _errors(s.recipe) <= known), None)
        steps += [step] if step else []
    return steps


def changed(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with other values, as if they had been written.

    Defaults are left out, since some checks ask which fields were given.
    """
    document = recipe.model_dump(mode="json", exclude_defaults=True)
    for field, value in changes.items():
        section, name = field.split(".")
        document.setdefault(section, {})[name] = value
    return Recipe.model_validate(document)


def _errors(recipe: Recipe) -> set[tuple[str, str]]:
    found = errors_of(look(changed(recipe, {})))
    return {(finding.code, finding.field) for finding in found}
