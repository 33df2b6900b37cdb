"""The two-way table of fields that are one key of a backend.

All of them are None by default, which renders nothing. Rendering reads the table from left to
right, importing from right to left; fields that need more than that are in the backends' modules.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from orchestrator.backends.fields import model_and_data, running, training
from orchestrator.backends.fields.pair import Pair
from orchestrator.recipe.models import Recipe

PAIRS: tuple[Pair, ...] = (*model_and_data.PAIRS, *training.PAIRS, *running.PAIRS)

COMMA = frozenset({
    "lora_target", "additional_target", "galore_target", "apollo_target", "oft_target",
    "freeze_trainable_modules", "freeze_extra_modules", "add_tokens", "add_special_tokens",
    "dataset", "eval_dataset", "interleave_probs",
})  # fmt: skip
"""LLaMA-Factory keys that are lists written as one text with commas."""


def field_value(recipe: Recipe, field: str) -> Any:
    """The value of a dotted field; None if a section on the way is not there."""
    value: Any = recipe
    for part in field.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def given(recipe: Recipe) -> Iterator[tuple[Pair, Any]]:
    """The rows that a recipe uses, with their values."""
    for pair in PAIRS:
        value = field_value(recipe, pair.field)
        if value is not None:
            yield pair, value


def render(recipe: Recipe, backend: str) -> dict[str, Any]:
    """The backend's keys for every field of the table that the recipe uses."""
    config: dict[str, Any] = {}
    for pair, value in given(recipe):
        key = pair.key(backend)
        if key:
            put(config, key, native_value(backend, key, value))
    return config


def native_value(backend: str, key: str, value: Any) -> Any:
    """A value as the backend writes it: LLaMA-Factory joins most lists."""
    if not isinstance(value, tuple):
        return value
    if backend == "llamafactory" and key in COMMA:
        return ",".join(str(item) for item in value)
    return list(value)


def neutral_value(backend: str, key: str, value: Any) -> Any:
    """The way back from `native_value`."""
    if backend != "llamafactory":
        return value
    if key in COMMA and isinstance(value, str):
        items = [item.strip() for item in value.split(",") if item.strip()]
        return [_number(item) for item in items] if key == "interleave_probs" else items
    if key == "fsdp" and isinstance(value, str):
        return value.split()
    return value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[last] = value


def take(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, or None."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@cache
def by_key(backend: str) -> dict[str, str]:
    """Native key (dotted where nested) -> neutral field."""
    return {key: pair.field for pair in PAIRS if (key := pair.key(backend))}
