"""Loading recipes: every mistake found at once, each with its place and a way out."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.findings import Finding, RecipeError
from orchestrator.recipe.load import load, model_at
from orchestrator.recipe.models import Training
from tests.helpers import loaded, write_recipe


def problems(path: Path, *overrides: str) -> list[Finding]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides=overrides)
    return list(caught.value.findings)


def one(tmp_path: Path, **changes: Any) -> Finding:
    found = problems(write_recipe(tmp_path / "r.yaml", **changes))
    assert len(found) == 1, [str(finding) for finding in found]
    return found[0]


def test_misspelled_key_names_the_right_one(tmp_path: Path) -> None:
    found = one(tmp_path, **{"training.learning_rte": 1e-4, "training.learning_rate": None})
    assert found.code == "FT101"
    assert "unknown key 'learning_rte'" in found.message
    assert "did you mean 'learning_rate'?" in found.message
    assert found.place
    assert (tmp_path / "r.yaml").read_text().splitlines()[found.place.line - 1].strip() == (
        "learning_rte: 0.0001"
    )


def test_key_in_the_wrong_section_is_sent_home(tmp_path: Path) -> None:
    found = one(tmp_path, **{"model.rank": 8})
    assert found.fix == "move it: adapter.rank"


@pytest.mark.parametrize(
    ("field", "value", "code", "words"),
    [
        ("training.learning_rate", "1e-4", "FT102", "a number is needed"),
        ("training.learning_rate", 0, "FT103", "above 0"),
        ("training.epochs", True, "FT102", "a number"),
        ("training.micro_batch_size", 2.5, "FT102", "a whole number"),
        ("training.micro_batch_size", 0, "FT103", "at least 1"),
        ("training.save", "sometimes", "FT103", "epoch"),
        ("data.packing", "yes", "FT102", "true or false"),
        ("data.sources", [], "FT103", "must not be empty"),
        ("data.sources", "file", "FT102", "a list"),
        ("adapter", 3, "FT102", "a section"),
        ("adapter.targets", 3, "FT103", "all-linear"),
        ("model.base", 5, "FT102", "text is needed"),
        ("model.quantization", "nf5", "FT103", "did you mean 'nf4'?"),
        ("backend", "axolot", "FT103", "did you mean 'axolotl'?"),
        ("name", "a b", "FT103", "letters"),
        ("distributed.zero_stage", 4, "FT103", "1, 2, 3"),
    ],
)
def test_wrong_values(tmp_path: Path, field: str, value: Any, code: str, words: str) -> None:
    found = one(tmp_path, **{field: value})
    assert found.code == code
    assert words in found.message
    assert found.field == field


def test_all_mistakes_at_once_in_order(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path / "r.yaml",
        **{"model.bse": "x", "training.epochs": -1, "data.packing": 1, "nam": "y"},
    )
    found = problems(path)
    assert len(found) == 4
    lines = [finding.place.line for finding in found if finding.place]
    assert lines == sorted(lines)


def test_missing_section(tmp_path: Path) -> None:
    found = one(tmp_path, training=None)
    assert (found.code, found.field) == ("FT104", "training")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"a: \xff\xfe\n", "FT002"),
        (b"", "FT105"),
        (b"- a\n- b\n", "FT105"),
        (b"just text\n", "FT105"),
        (b"a: [1\n", "FT001"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    assert [finding.code for finding in problems(path)] == [code]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    assert [f.code for f in problems(tmp_path / "none.yaml")] == ["FT003"]
    assert [f.code for f in problems(tmp_path)] == ["FT003"]


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).recipe.name == "basic"


def test_overrides(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml")
    recipe = load(
        path,
        overrides=["training.epochs=3", "data.sources.0.samples=5", "tracking.type=wandb",
                   "adapter.targets=[q_proj, v_proj]"],
        backend="llamafactory",
    ).recipe  # fmt: skip
    assert recipe.training.epochs == 3
    assert recipe.data.sources[0].samples == 5
    assert recipe.tracking.type == "wandb"
    assert recipe.adapter.targets == ("q_proj", "v_proj")
    assert recipe.backend == "llamafactory"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epohcs=3", "did you mean 'epochs'?"),
        ("training.epochs", "key=value"),
        ("training..epochs=3", "key=value"),
        ("training.epochs=[", "YAML syntax"),
        ("data.sources.7.path=x", "data.sources[7]"),
        ("name.x=1", "is not a section"),
        ("training.epochs=three", "a number is needed"),
    ],
)
def test_bad_overrides_say_so_at_their_place(tmp_path: Path, override: str, words: str) -> None:
    found = problems(write_recipe(tmp_path / "r.yaml"), override)
    assert any(words in finding.message for finding in found)
    assert all(str(finding.place).startswith("--set") for finding in found)


def test_model_at_walks_lists() -> None:
    assert model_at(("training",)) is Training
    source = model_at(("data", "sources", 0))
    assert source is not None
    assert "format" in source.model_fields


def test_recipes_are_frozen() -> None:
    recipe = loaded().recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ("base_model: a\ndatasets: []\nlearning_rate: 1e-4\n", "axolotl", "ft recipe import"),
        ("model_name_or_path: a\nstage: sft\ndataset: a\n", "LLaMA-Factory", "ft recipe import"),
        ("compute_environment: x\ndistributed_type: FSDP\nnum_processes: 8\n", "accelerate", ""),
    ],
)
def test_a_backends_own_configuration_is_named(
    tmp_path: Path, text: str, said: str, fix: str
) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(file)
    (finding,) = caught.value.findings
    assert finding.code == "FT105"
    assert said in finding.message
    assert finding.fix.startswith(fix)
