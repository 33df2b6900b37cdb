"""Everything rendered from the shipped recipes, as reviewed files.

`make golden` rewrites them; the diff is what a change of a renderer means for users.
"""

import os
from pathlib import Path

import pytest
import yaml

from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check, has_errors
from orchestrator.distributed.deepspeed import shipped_files
from orchestrator.findings import RecipeError
from orchestrator.recipe.load import load
from orchestrator.recipe.sources import shipped
from orchestrator.standalone import standalone
from tests.helpers import ROOT

GOLDEN = ROOT / "tests" / "golden" / "rendered"
RECIPES = sorted(shipped("recipes").glob("*.yaml"))
REWRITE = os.environ.get("FT_GOLDEN") == "write"


def expressible() -> list[tuple[Path, str]]:
    """Shipped recipes with the backends that can do what they ask for."""
    pairs = []
    for file in RECIPES:
        for backend in BACKENDS:
            if not has_errors(check(load(file, backend=backend))):
                pairs.append((file, backend))
    return pairs


@pytest.mark.parametrize(("file", "backend"), expressible(), ids=lambda value: str(value)[-24:])
def test_rendered_files_are_the_reviewed_ones(file: Path, backend: str) -> None:
    rendered, _ = standalone(load(file, backend=backend))
    folder = GOLDEN / file.stem / backend
    if REWRITE:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for made in rendered.files:
            (folder / made.name).write_text(made.text, encoding="utf-8")
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == {
        made.name: made.text for made in rendered.files
    }


@pytest.mark.parametrize(("file", "backend"), expressible(), ids=lambda value: str(value)[-24:])
def test_every_rendered_key_is_known_to_the_pinned_release(file: Path, backend: str) -> None:
    rendered, _ = standalone(load(file, backend=backend))
    keys = BACKENDS[backend].native_keys()
    for name in ("train.yaml", "preprocess.yaml", "merge.yaml"):
        made = {entry.name: entry.text for entry in rendered.files}
        if name in made:
            assert set(yaml.safe_load(made[name])) <= set(keys)


def test_no_golden_file_is_left_over() -> None:
    expected = {(file.stem, backend) for file, backend in expressible()}
    there = {(path.parent.name, path.name) for path in GOLDEN.glob("*/*")}
    assert there == expected


def test_shipped_deepspeed_files_are_what_the_builder_makes() -> None:
    folder = ROOT / "deepspeed_configs"
    if REWRITE:
        for name, text in shipped_files().items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == shipped_files()


def test_each_recipe_starts_with_what_it_is_for_and_how_to_run_it() -> None:
    assert {file.stem for file in RECIPES} >= {
        "mistral-qlora", "llama3-lora-ds3", "qwen-lora-chat", "agnews-lora", "llama-full-z2",
        "mistral-dpo",
    }  # fmt: skip
    for file in RECIPES:
        lines = file.read_text("utf-8").splitlines()
        comment = "\n".join(line for line in lines[:6] if line.startswith("#"))
        assert "Hardware:" in comment
        assert f"ft recipe run {file.stem}" in comment
        assert load(file).recipe.name == file.stem


def test_recipe_with_errors_renders_nothing(tmp_path: Path) -> None:
    loaded = load(RECIPES[0], overrides=["training.steps=5", "training.epochs=1"])
    with pytest.raises(RecipeError):
        standalone(loaded)
