"""Batches that do not stay what the recipe says (`FT248`)."""

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
