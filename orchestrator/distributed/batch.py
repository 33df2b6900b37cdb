"""Rows of an optimizer step: those of one forward pass, times how often, times the processes.

`training.effective_batch` says the product, and the accumulation follows from it: on one GPU or on
eight, a recipe takes the same steps at the same learning rate.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

FIELD = "training.effective_batch"


@dataclass(frozen=True, slots=True)
class Batch:
    """The factors of a step's rows; `replicas` are the processes with data of their own."""

    micro: int
    accumulation: int
    replicas: int

    @property
    def effective(self) -> int:
        """Rows per optimizer step."""
        return self.micro * self.accumulation * self.replicas

    def __str__(self) -> str:
        return (
            f"{self.effective} rows per step = {self.micro} per forward pass x "
            f"{self.accumulation} accumulated x {self.replicas} process"
            f"{'' if self.replicas == 1 else 'es'}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "micro": self.micro,
            "accumulation": self.accumulation,
            "processes": self.replicas,
            "effective": self.effective,
        }


def _sharing(recipe: Recipe) -> int:
    """Processes that share a sequence or a layer, and so their rows."""
    spread = recipe.distributed
    return (spread.context_parallel or 1) * (spread.tensor_parallel or 1)


def replicas(recipe: Recipe, processes: int) -> int:
    """Processes that see rows of their own: those that share a sequence or a layer count once."""
    return max(1, processes // _sharing(recipe))


def of(recipe: Recipe, processes: int) -> Batch:
    """The batch of a recipe in so many processes."""
    training = recipe.training
    return Batch(
        training.micro_batch_size, training.gradient_accumulation, replicas(recipe, processes)
    )


def settled(recipe: Recipe, processes: int) -> tuple[Recipe, list[Finding]]:
    """The recipe with the accumulation that its effective batch asks for in so many processes."""
    wanted = recipe.training.effective_batch
    if processes > 1 and processes % _sharing(recipe):
        return recipe, [_ungrouped(recipe, processes)]
    if wanted is None:
        return recipe, []
    micro, copies = recipe.training.micro_batch_size, replicas(recipe, processes)
    if wanted % (micro * copies):
        return recipe, [_indivisible(wanted, micro, copies)]
    accumulation = wanted // (micro * copies)
    said = "gradient_accumulation" in recipe.training.model_fields_set
    if said and recipe.training.gradient_accumulation != accumulation:
        return recipe, [_contradiction(recipe, processes)]
    training = recipe.training.model_copy(update={"gradient_accumulation": accumulation})
    return recipe.model_copy(update={"training": training}), []


def _ungrouped(recipe: Recipe, processes: int) -> Finding:
    name = "tensor_parallel" if recipe.distributed.tensor_parallel else "context_parallel"
    text = f"{processes} processes cannot be split into groups of {_sharing(recipe)}"
    fix = f"another number of GPUs, or a {name} that divides them"
    return Finding("FT236", "error", text, field=f"distributed.{name}", fix=fix)


def _contradiction(recipe: Recipe, processes: int) -> Finding:
    text = (
        f"{recipe.training.effective_batch} rows are asked for, but it is {of(recipe, processes)}"
    )
    fix = "remove training.gradient_accumulation: it follows from effective_batch"
    return Finding("FT236", "error", text, field=FIELD, fix=fix)


def _indivisible(wanted: int, micro: int, copies: int) -> Finding:
    if wanted % copies:
        nearest = max(1, round(wanted / (micro * copies))) * micro * copies
        fix = f"--set {FIELD}={nearest}, or another number of GPUs"
    else:
        share = wanted // copies
        usable = max(n for n in range(1, micro + 1) if share % n == 0)
        fix = f"--set training.micro_batch_size={usable}"
    text = f"{wanted} rows cannot be made of {micro} rows in each of {copies} processes"
    return Finding("FT236", "error", text, field=FIELD, fix=fix)
