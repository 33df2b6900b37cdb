"""Batches that do not stay what the recipe says (`FT248`), or are too small (`FT249`)."""

from collections.abc import Iterator

from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


def batch_search(recipe: Recipe) -> Iterator[Finding]:
    """The trainer's own search lowers the micro batch and not the rest: another effective batch."""
    training = recipe.training
    if training.on_oom == "retry" and training.batch_search:
        yield Finding(
            "FT248",
            "error",
            "batch_search changes the effective batch, which on_oom: retry keeps",
            field="training.batch_search",
            fix="--set training.batch_search=false, or --set training.on_oom=stop",
        )


def kto_pairs(recipe: Recipe) -> Iterator[Finding]:
    """KTO sets answers of a micro batch against one another; trl 1.9.0 refuses one row."""
    training = recipe.training
    if (recipe.backend, training.stage, training.micro_batch_size) == ("axolotl", "kto", 1):
        yield Finding(
            "FT249",
            "error",
            "KTO needs at least two rows in a forward pass",
            field="training.micro_batch_size",
            fix="--set training.micro_batch_size=2",
        )
