"""The smoke form of a recipe: pure, complete, and honest about what it changed."""

import json
from typing import Any

import pytest

from orchestrator import smoke
from orchestrator.checks import check, has_errors
from orchestrator.errors import UsageError
from orchestrator.recipe.load import Loaded, load
from orchestrator.recipe.models import Source, column
from orchestrator.recipe.sources import shipped
from tests.helpers import loaded

RECIPES = sorted(shipped("recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_smoke_form_of_every_shipped_recipe_is_sound(file: Any) -> None:
    original = load(file)
    made = smoke.smoke_recipe(original.recipe, smoke.family_of(original.recipe))
    assert not has_errors(check(Loaded(made.recipe, original.document, file)))
    for kept in ("adapter", "output"):
        before, after = getattr(original.recipe, kept), getattr(made.recipe, kept)
        assert before.model_copy(update={"push_to_hub": None}) == after
    assert made.recipe.model.quantization == original.recipe.model.quantization
    assert made.recipe.data.packing == original.recipe.data.packing
    assert made.recipe.data.chat_template == original.recipe.data.chat_template
    assert made.recipe.training.stage == original.recipe.training.stage


def test_every_change_is_listed() -> None:
    recipe = loaded(**{"model.dtype": "bfloat16", "training.gradient_accumulation": 8}).recipe
    made = smoke.smoke_recipe(recipe, "mistral")
    before, after = recipe.model_dump(mode="json"), made.recipe.model_dump(mode="json")
    listed = {line.partition(":")[0] for line in made.changes}
    for section, values in after.items():
        if not isinstance(values, dict):
            continue
        for name, value in values.items():
            if before[section].get(name) != value and section not in ("distributed", "tracking"):
                assert f"{section}.{name}" in listed
    assert "model.dtype: bfloat16 -> float32 (CPU)" in made.changes


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("mistralai/Mistral-7B-v0.3", "mistral"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-2-7b-hf", "llama2"),
        ("Qwen/Qwen2.5-0.5B", "qwen2"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("google/gemma-2-2b", "gemma"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3"),
    ],
)
def test_family_from_the_name(base: str, family: str) -> None:
    assert smoke.family_of(loaded(**{"model.base": base}).recipe) == family


def test_family_from_the_config_or_from_the_recipe() -> None:
    recipe = loaded(**{"model.base": "me/secret"}).recipe
    assert smoke.family_of(recipe, "qwen2") == "qwen2"
    with pytest.raises(UsageError, match="cannot tell the architecture family"):
        smoke.family_of(recipe)
    assert smoke.family_of(loaded(**{"model.base": "x/y", "model.family": "gemma"}).recipe) == (
        "gemma"
    )


SOURCES: list[dict[str, Any]] = [
    {"format": "alpaca"},
    {"format": "alpaca", "columns": {"instruction": "q", "output": "a", "system": "s"}},
    {"format": "alpaca", "columns": {"input": None, "output": "a"}},
    {"format": "messages", "columns": {"messages": "chat", "role": "who", "content": "what"}},
    {"format": "sharegpt"},
    {"format": "messages", "roles": {"assistant": "model"}},
    {"format": "preference", "columns": {"messages": "conversation"}},
    {"format": "kto"},
    {"format": "text", "columns": {"text": "body"}},
]


@pytest.mark.parametrize("entry", SOURCES)
def test_small_data_has_the_recipe_s_own_columns(entry: dict[str, Any]) -> None:
    source = Source.model_validate({"path": "x", **entry})
    rows = [json.loads(line) for line in smoke.data_for(source).splitlines()]
    assert len(rows) > 100
    for role in source.columns:
        name = column(source, role)
        if name is None:
            assert role not in rows[0]
            continue
        holder = rows[0] if role not in ("role", "content") else rows[0]["chat"][0]
        assert name in holder
    if entry["format"] == "sharegpt":
        assert {m["from"] for m in rows[0]["conversations"]} <= {"system", "human", "gpt"}
    if entry.get("roles"):
        assert "model" in {m["role"] for row in rows for m in row["messages"]}


def test_twin_folders_are_named_by_what_makes_them() -> None:
    key = smoke.twin_key("mistral", "1", 42)
    assert key == smoke.twin_key("mistral", "1", 42)
    assert len({key, smoke.twin_key("llama3", "1", 42), smoke.twin_key("mistral", "1", 43)}) == 3
