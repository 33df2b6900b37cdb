"""Two recipes, or two runs, field by field: what `ft recipe diff` shows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.recipe.load import load
from orchestrator.recipe.models import Recipe
from orchestrator.runs.record import open_record


class Difference(NamedTuple):
    """One field that differs; None: it is not there."""

    field: str
    left: Any
    right: Any


class Side(NamedTuple):
    """One of the two things that are compared."""

    name: str
    fields: Mapping[str, Any]


def of_recipe(name: str, recipe: Recipe) -> Side:
    """A recipe with its defaults written out, so that `rank: 16` and no rank are the same."""
    return Side(name, dict(_flat(recipe.model_dump(mode="json"), "")))


def of_run(root: Path) -> Side:
    """A run: its resolved recipe, and what it ran on and came to.

    Raises:
        UsageError: the folder is no run.
        RecipeError: its recipe cannot be read by this ft.
    """
    record = open_record(root)
    document = record.document
    stages = document.get("stages", {})
    facts = stages.get("train", {}).get("facts", {})
    environment = document.get("environment", {})
    loss = facts.get("loss") or {}
    about = {
        "run.status": record.status,
        "run.release": environment.get("release"),
        "run.data": document.get("fingerprint"),
        "run.steps": facts.get("global_step"),
        "run.seconds": document.get("seconds"),
        "run.loss.first": loss.get("first"),
        "run.loss.last": loss.get("last"),
        "run.loss.eval": loss.get("eval"),
        "run.smoke": document.get("smoke"),
        "run.commit": (document.get("git") or {}).get("commit"),
    }
    recipe = of_recipe(record.layout.id, load(record.layout.recipe).recipe)
    return Side(record.layout.id, {**recipe.fields, **about})


def differences(left: Side, right: Side) -> list[Difference]:
    """The fields that are not the same on both sides, in the order of the recipe."""
    names = [*left.fields, *(name for name in right.fields if name not in left.fields)]
    return [
        Difference(name, left.fields.get(name), right.fields.get(name))
        for name in names
        if _differ(left.fields.get(name), right.fields.get(name))
    ]


def _differ(left: Any, right: Any) -> bool:
    """`1` and `1.0` are the same setting, `1` and `true` are not."""
    return left != right or isinstance(left, bool) != isinstance(right, bool)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted path; a list of plain values is one leaf."""
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    elif value not in ({}, []):
        yield path, value
