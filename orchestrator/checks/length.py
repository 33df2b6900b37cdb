"""How long a run is, and when it is evaluated and saved.

Findings: `FT201`, `FT202`, `FT211`-`FT213`, `FT226`, `FT228`, `FT229`.
"""

from collections.abc import Iterator

from orchestrator.checks.counts import for_steps
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


def length_of_run(recipe: Recipe) -> Iterator[Finding]:
    """Exactly one of epochs and steps; a warm-up that fits."""
    training = recipe.training
    if training.epochs is None and training.steps is None:
        yield Finding(
            "FT201",
            "error",
            "neither epochs nor steps is given",
            field="training",
            fix="--set training.epochs=1",
        )
    if training.epochs is not None and training.steps is not None:
        yield Finding(
            "FT201",
            "error",
            "epochs and steps exclude each other",
            field="training.steps",
            fix="keep one of the two",
        )
    if training.warmup_ratio and training.warmup_steps:
        yield Finding(
            "FT202",
            "error",
            "warmup_ratio and warmup_steps exclude each other",
            field="training.warmup_steps",
            fix="keep one of the two",
        )
    if training.steps and (training.warmup_steps or 0) >= training.steps:
        yield Finding(
            "FT202",
            "error",
            f"warm-up ({training.warmup_steps} steps) is as long as the run "
            f"({training.steps} steps)",
            field="training.warmup_steps",
            fix=f"--set training.warmup_steps={max(1, training.steps // 10)}",
        )


def evaluation(recipe: Recipe) -> Iterator[Finding]:
    """Held-out data is evaluated, evaluation has data, early stopping has both."""
    data, training = recipe.data, recipe.training
    held_out = bool(data.validation or data.validation_sources)
    if data.validation and data.validation_sources:
        yield Finding(
            "FT211",
            "error",
            "validation and validation_sources exclude each other",
            field="data.validation",
            fix="keep one of the two",
        )
    if data.validation >= 1 and not float(data.validation).is_integer():
        yield Finding(
            "FT211",
            "error",
            "a number of rows is whole; a share is below 1",
            field="data.validation",
        )
    if held_out and training.evaluate == "never":
        yield Finding(
            "FT212",
            "warning",
            "rows are held out for validation but never evaluated",
            field="data.validation",
            fix="--set training.evaluate=epoch",
        )
    if training.evaluate not in (None, "never") and not held_out:
        yield Finding(
            "FT212",
            "error",
            "there is nothing to evaluate on",
            field="training.evaluate",
            fix="--set data.validation=0.02",
        )
    if training.early_stopping is None or training.keep_best is False:
        return
    if training.evaluate == "never" or training.save == "never":
        yield Finding(
            "FT213",
            "error",
            "early stopping needs evaluate and save",
            field="training.early_stopping",
            fix="--set training.evaluate=100 --set training.save=100",
        )
    elif isinstance(training.evaluate, int) and isinstance(training.save, int):
        if training.save % training.evaluate:
            yield Finding(
                "FT213",
                "error",
                f"the best model can be kept only if every save (each "
                f"{training.save} steps) follows an evaluation (each {training.evaluate})",
                field="training.save",
                fix=f"--set training.save={training.evaluate}",
            )
    elif training.evaluate != training.save:
        yield Finding(
            "FT213",
            "error",
            "early stopping needs the same cadence for evaluate and save",
            field="training.save",
            fix=f"--set training.save={training.evaluate}",
        )


def schedule(recipe: Recipe) -> Iterator[Finding]:
    """Warm-up, saves and evaluations that cannot happen, without looking at the data."""
    training, data = recipe.training, recipe.data
    if training.steps and not training.epochs:
        yield from for_steps(recipe, training.steps, "training.steps")
    if training.scheduler == "constant" and (training.warmup_ratio or training.warmup_steps):
        yield Finding(
            "FT229",
            "warning",
            "the constant schedule has no warm-up",
            field="training.scheduler",
            fix="--set training.scheduler=constant_with_warmup",
        )
    if training.warmup_ratio >= 0.5:
        yield Finding(
            "FT202",
            "error" if training.warmup_ratio == 1 else "warning",
            f"{training.warmup_ratio:.0%} of the run is warm-up",
            field="training.warmup_ratio",
            fix="--set training.warmup_ratio=0.03",
        )
    if 0.5 < data.validation < 1:
        yield Finding(
            "FT226",
            "warning",
            f"{data.validation:.0%} of the data is held out, the smaller part is trained on",
            field="data.validation",
            fix=f"--set data.validation={1 - data.validation:.2g}",
        )
