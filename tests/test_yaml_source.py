"""Reading YAML with places, writing YAML that nobody misreads."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.recipe.yaml_source import dotted, parse
from orchestrator.yaml_out import dump


def values(text: str) -> Any:
    document, findings = parse(text, "x.yaml")
    assert not findings
    return document.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-11-22", "2026-11-22"),
        ("True", True),
        ("~", None),
        ("'1e-4'", "1e-4"),
        ("!!str 5", 5),
        (".inf", float("inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    assert values(f"a: {text}\n") == {"a": value}


def test_places_of_keys_and_values() -> None:
    document, _ = parse("a: 1\nb:\n  c: [x, y]\n", "x.yaml")
    assert str(document.place(("b", "c"), key=True)) == "x.yaml:3:3"
    assert str(document.place(("b", "c", 1))) == "x.yaml:3:10"
    assert str(document.place(("b", "missing"))) == "x.yaml:3:3"


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: 1\nb: [1\nc: 2\n", "FT001", 3),
        ("a: 1\n\tb: 2\n", "FT001", 2),
        ("a: *x\n", "FT001", 1),
        ("a: \x00", "FT001", 1),
        ("a: 1\n---\nb: 1\n", "FT001", 2),
        ("a: 1\nb: 2\na: 3\n", "FT004", 3),
        ("a: &a [1, *a]\n", "FT005", 1),
        ("[" * 5000, "FT005", 1),
        ("a: !python/object:os.system x\n", "FT006", 1),
        ("? [1, 2]\n: 3\n", "FT006", 1),
    ],
)
def test_what_is_wrong_has_a_code_and_a_line(text: str, code: str, line: int) -> None:
    _, findings = parse(text, "x.yaml")
    assert [(finding.code, finding.place.line) for finding in findings if finding.place] == [
        (code, line)
    ]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    _, findings = parse("\n".join(lines), "x.yaml")
    assert [finding.code for finding in findings] == ["FT005"]


def test_merge_keys_and_anchors_work() -> None:
    text = "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n"
    assert values(text)["other"] == {"x": 1, "y": 3}


def test_comment_at_the_top_survives() -> None:
    document, _ = parse("# one\n# two\n\n# three\na: 1\n", "x.yaml")
    assert document.comment == "# one\n# two"


def test_dotted() -> None:
    assert dotted(("data", "sources", 0, "path")) == "data.sources[0].path"


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\x85\u2028\u2029"),
    max_size=12,
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | TEXT
    | st.floats(allow_nan=False)
    | st.sampled_from(["no", "1e-5", "0777", "on", "3.0", "~", "1_0", "12:30", "0x1", "=", "<<"])
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(TEXT.filter(lambda key: key not in ("<<", "=")), TREES, max_size=4))
def test_what_is_written_reads_back_the_same_everywhere(tree: dict[str, Any]) -> None:
    text = dump(tree)
    assert yaml.safe_load(text) == tree, "PyYAML, as the backends read it"
    document, findings = parse(text, "x.yaml")
    assert not findings
    assert document.value == tree


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    parse(text, "x.yaml")
