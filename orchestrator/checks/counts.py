"""What follows from the number of rows, once local data has been read.

Findings: `FT202` warm-up, `FT226` nothing or everything held out, `FT227` a run of few steps,
`FT228` saves, evaluations or a stop that never come. Packing joins rows, so with it the number of
steps is not known and nothing is said about steps.
"""

import math
from collections.abc import Iterator

from orchestrator.distributed import batch
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


def from_rows(recipe: Recipe, rows: int) -> Iterator[Finding]:
    """Findings about a recipe whose training data has `rows` rows."""
    yield from _held_out(recipe, rows)
    if recipe.data.packing or recipe.training.steps or not recipe.training.epochs:
        return
    left = rows - _validation_rows(recipe, rows)
    per_step = batch_rows(recipe)
    if left > 0:
        steps = math.ceil(recipe.training.epochs * max(1, math.ceil(left / per_step)))
        yield from for_steps(recipe, steps, f"{left:,} rows in batches of {per_step}")
        if per_step > left:
            field, fix = _smaller_batch(recipe)
            yield Finding(
                "FT227",
                "warning",
                f"one batch ({per_step} rows) is more than all the data ({left:,} rows)",
                field=field,
                fix=fix,
            )


def _smaller_batch(recipe: Recipe) -> tuple[str, str]:
    """The field that makes the batch large, and what to set."""
    if recipe.training.effective_batch:
        field, value = "effective_batch", batch.of(recipe, processes(recipe)).replicas
    else:
        field, value = "gradient_accumulation", 1
    return f"training.{field}", f"--set training.{field}={value}"


def batch_rows(recipe: Recipe) -> int:
    """Rows per optimizer step, over all processes."""
    training = recipe.training
    if training.effective_batch:
        return training.effective_batch
    return training.micro_batch_size * training.gradient_accumulation * processes(recipe)


def processes(recipe: Recipe) -> int:
    """Processes as far as the recipe says; one where it leaves them to the machine."""
    spread = recipe.distributed
    return 1 if spread.strategy == "none" else (spread.gpus or 1) * spread.nodes


def for_steps(recipe: Recipe, steps: int, why: str) -> Iterator[Finding]:
    """Findings about a run of `steps` optimizer steps; `why` there are so many."""
    training = recipe.training
    if training.epochs and (training.warmup_steps or 0) >= steps:
        yield Finding(
            "FT202",
            "error",
            f"warm-up ({training.warmup_steps} steps) is as long as the run ({steps} steps: {why})",
            field="training.warmup_steps",
            fix=f"--set training.warmup_steps={steps // 10}",
        )
    if isinstance(training.evaluate, int) and training.evaluate > steps:
        yield Finding(
            "FT228",
            "warning",
            f"the run has {steps} steps ({why}) and is evaluated each {training.evaluate}: never",
            field="training.evaluate",
            fix=f"--set training.evaluate={max(1, steps // 4)}",
        )
    if isinstance(training.save, int) and training.save > steps:
        yield Finding(
            "FT228",
            "note",
            f"the run has {steps} steps ({why}) and saves each {training.save}: only at its end",
            field="training.save",
        )


def _validation_rows(recipe: Recipe, rows: int) -> int:
    size = recipe.data.validation
    return int(size) if size >= 1 else math.ceil(rows * size)


def _held_out(recipe: Recipe, rows: int) -> Iterator[Finding]:
    """A share of nothing, of less than the processes need, or of everything."""
    size = recipe.data.validation
    if not size:
        return
    exact = size if size >= 1 else rows * size
    if exact >= rows or _validation_rows(recipe, rows) >= rows:
        yield Finding(
            "FT226",
            "error",
            f"validation takes all {rows:,} rows: nothing is left to train on",
            field="data.validation",
            fix="--set data.validation=0.02",
        )
    elif exact < 1:
        yield Finding(
            "FT226",
            "error",
            f"validation is {exact:.2g} of a row ({rows:,} rows): nothing to evaluate on",
            field="data.validation",
            fix=f"--set data.validation={max(1, rows // 50)}",
        )
    elif exact < processes(recipe):
        yield Finding(
            "FT226",
            "warning",
            f"validation is {int(exact)} rows for {processes(recipe)} processes",
            field="data.validation",
            fix=f"--set data.validation={processes(recipe)}",
        )
