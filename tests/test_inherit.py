"""`extends` and variables: what results, and where its mistakes are reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.findings import Finding, RecipeError
from orchestrator.recipe.load import load
from tests.helpers import ft, write_recipe


def child(folder: Path, text: str) -> Path:
    file = folder / "child.yaml"
    file.write_text(f"name: child\n{text}", encoding="utf-8")
    return file


def problem(file: Path) -> Finding:
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert len(caught.value.findings) == 1, [str(f) for f in caught.value.findings]
    return caught.value.findings[0]


def test_mappings_merge_and_lists_are_replaced(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base.yaml", **{"adapter.targets": ["q_proj", "v_proj"]})
    file = child(
        tmp_path, "extends: base.yaml\nadapter: {targets: [o_proj]}\ntraining: {epochs: 9}\n"
    )
    recipe = load(file).recipe
    assert (recipe.name, recipe.training.epochs, recipe.training.learning_rate) == (
        "child", 9, 1e-4,
    )  # fmt: skip
    assert recipe.adapter.targets == ("o_proj",)
    assert recipe.adapter.type == "lora"


def test_null_takes_a_value_away(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base.yaml")
    recipe = load(child(tmp_path, "extends: base\ntraining: {epochs: null, steps: 3}\n")).recipe
    assert (recipe.training.epochs, recipe.training.steps) == (None, 3)


def test_base_by_recipe_name_and_shown_resolved(tmp_path: Path) -> None:
    child(tmp_path, "extends: mistral-qlora\ntraining: {epochs: 7}\n")
    shown = ft("recipe", "show", "child.yaml", "--resolved", cwd=tmp_path)
    assert "epochs: 7" in shown.out
    assert "extends" not in shown.out
    assert "mistralai/Mistral-7B-v0.3" in shown.out


def test_mistakes_stand_in_the_file_that_holds_them(tmp_path: Path) -> None:
    base = write_recipe(tmp_path / "base.yaml", **{"model.dtyp": "auto"})
    place = problem(child(tmp_path, "extends: base.yaml\n")).place
    assert place
    assert place.file == str(base)
    assert base.read_text().splitlines()[place.line - 1].strip() == "dtyp: auto"
    write_recipe(base)
    place = problem(child(tmp_path, "extends: base.yaml\nmodel: {base: x/y, dtyp: z}\n")).place
    assert place
    assert (place.file, place.line) == (str(tmp_path / "child.yaml"), 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.yaml", "there is no recipe file"),
        ("mistral-qlroa", "did you mean 'mistral-qlora'"),
        ("child.yaml", "cannot extend itself"),
        ("[a]", "names one recipe"),
        ("5", "names one recipe"),
        ("a" * 5000, "names no file"),
        ("list.yaml", "is no recipe"),
        ("second.yaml", "one level"),
    ],
)
def test_bases_that_cannot_be(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "list.yaml").write_text("[1]\n")
    (tmp_path / "second.yaml").write_text("extends: base.yaml\n")
    found = problem(child(tmp_path, f"extends: {name}\n"))
    assert found.code == "FT107"
    assert words in found.message


def test_paths_of_a_base_count_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "d.jsonl").write_text("{}\n")
    write_recipe(
        folder / "base.yaml", **{"data.sources": [{"path": "d.jsonl", "format": "alpaca"}]}
    )
    recipe = load(child(tmp_path, "extends: shared/base.yaml\n")).recipe
    assert recipe.data.sources[0].path == str(folder / "d.jsonl")


VARIABLES: list[dict[str, Any]] = [
    {"model.base": "${FT_X}/m"},
    {"output.directory": "a/${FT_X}"},
    {"tracking": {"type": "wandb", "project": "p-${FT_X}"}},
    {"data.sources": [{"path": "${FT_X}/d.jsonl", "format": "alpaca"}]},
]


@pytest.mark.parametrize("changes", VARIABLES)
def test_variables_in_paths_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    file = write_recipe(tmp_path / "r.yaml", **changes)
    monkeypatch.delenv("FT_X", raising=False)
    found = problem(file)
    assert (found.code, found.message) == ("FT108", "the variable FT_X is not set")
    assert found.place
    assert "FT_X" in file.read_text().splitlines()[found.place.line - 1]
    monkeypatch.setenv("FT_X", "here")
    text = load(file).recipe.model_dump_json()
    assert "here" in text
    assert "${" not in text


def test_nothing_cleverer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_recipe(tmp_path / "r.yaml", **{"output.directory": "${FT_X:-there}"})
    assert problem(file).code == "FT108"
    monkeypatch.setenv("FT_X", "${HOME}")
    file = write_recipe(tmp_path / "r.yaml", **{"output.directory": "${FT_X}"})
    assert load(file).recipe.output.directory == "${HOME}"
    file = write_recipe(tmp_path / "r.yaml", description="costs ${FT_X}")
    assert load(file).recipe.description == "costs ${FT_X}"


def test_overrides_come_last_and_the_schema_knows(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base.yaml")
    file = child(tmp_path, "extends: base\ntraining: {epochs: 2}\n")
    assert load(file, overrides=["training.epochs=5"]).recipe.training.epochs == 5
    assert "extends" in json.loads(ft("recipe", "schema").out)["properties"]
