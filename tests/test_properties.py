"""Properties: what is valid renders to YAML that means the same; what is broken is told.

The recipes are made from the models themselves, so a new field is tested from its first day.
"""

import random
import types
import typing
from pathlib import Path
from typing import Any, Literal

import annotated_types
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from orchestrator.backends.base import Paths, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check, has_errors
from orchestrator.findings import RecipeError
from orchestrator.problems import find_problems
from orchestrator.recipe.load import from_document, load
from orchestrator.recipe.models import (
    STAGE_FORMATS,
    Adapter,
    Data,
    Model,
    Recipe,
    Stage,
    Tracking,
    Training,
)
from orchestrator.recipe.sources import shipped
from orchestrator.recipe.yaml_source import parse
from orchestrator.templates import ALPACA, TEMPLATES
from orchestrator.yaml_out import dump

QUIET = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow,
                                                           HealthCheck.filter_too_much]
)  # fmt: skip

TRAPS = [
    "no", "on", "off", "yes", "y", "n", "true", "null", "~", "1e-5", "1E5", "3.0", "0777", "0o17",
    "0x1f", "1_000", "12:30:45", "2026-11-22", "=", "<<", "- a", "a: b", "a #b", "'", '"', "%x",
    "@x", "`x`", "!x", "&x", "*x", "|", ">", "?", "{a}", "[a]", " a", "a ", "é", "日本", "\u2028",
    "a\nb", "\t", "\x7f", "1.", ".5", "+1", "-0", ".inf", ".nan", "0b1", "1__0", "\ufeff",
]  # fmt: skip
SPREAD: list[dict[str, Any]] = [
    {}, {"strategy": "ddp", "gpus": 2}, {"strategy": "deepspeed", "zero_stage": 3, "gpus": 2},
    {"strategy": "fsdp", "gpus": 2},
]  # fmt: skip
ODD_LINES = [
    "---", "...", "%YAML 1.2", "extends: mistral-qlora", "? a", "<<: {a: b}", "&a *a",
    "!!python/x y",
]  # fmt: skip
SECTIONS: dict[str, type[BaseModel]] = {
    "model": Model, "data": Data, "adapter": Adapter, "training": Training, "tracking": Tracking,
}  # fmt: skip
STAGES: list[Stage] = ["pretrain", "sft", "dpo", "orpo", "kto", "reward"]
ONE_BACKEND = ("registered", "custom", "pieces")
texts = st.one_of(
    st.sampled_from(TRAPS),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts,
              st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def of_annotation(annotation: Any, constraints: list[Any]) -> st.SearchStrategy[Any]:
    """Values of a field's type, inside its bounds."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return of_annotation(arguments[0], [*constraints, *arguments[1:]])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(of_annotation(part, constraints) for part in arguments))
    if origin is tuple:
        least = _bound(constraints, "min_length") or 0
        return st.lists(of_annotation(arguments[0], []), min_size=least, max_size=2)
    if origin is dict:
        keys, values = (of_annotation(part, []) for part in arguments)
        return st.dictionaries(keys, values, max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return of_model(annotation)
    return _scalar(annotation, constraints)


def _scalar(annotation: Any, constraints: list[Any]) -> st.SearchStrategy[Any]:
    if annotation is bool:
        return st.booleans()
    if annotation is type(None):
        return st.none()
    if annotation is str:
        pattern = _bound(constraints, "pattern")
        return (
            st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= 80)
            if pattern
            else texts
        )
    if annotation in (int, float):
        return _number(annotation, constraints)
    return plain


def _number(kind: type, constraints: list[Any]) -> st.SearchStrategy[Any]:
    above, below = _bound(constraints, "gt"), _bound(constraints, "lt")
    low, high = _bound(constraints, "ge"), _bound(constraints, "le")
    least = above if low is None else low
    most = below if high is None else high
    if kind is int:
        first = 0 if least is None else least + (low is None)
        last = first + 2**20 if most is None else most - (high is None)
        return st.integers(first, last)
    return st.floats(
        least, most, exclude_min=least is not None and low is None,
        exclude_max=most is not None and high is None, allow_nan=False, allow_infinity=False,
    )  # fmt: skip


def _bound(constraints: list[Any], name: str) -> Any:
    for constraint in constraints:
        inner = [constraint, *getattr(constraint, "metadata", ())]
        for one in inner:
            if isinstance(one, (annotated_types.BaseMetadata, StringConstraints, FieldInfo)) or (
                hasattr(one, name)
            ):
                value = getattr(one, name, None)
                if value is not None:
                    return value
    return None


def of_model(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings that a section accepts: required keys always, others now and then.

    Of the many fields that are None by default, at most two.
    """
    required: dict[str, st.SearchStrategy[Any]] = {}
    usual: dict[str, st.SearchStrategy[Any]] = {}
    rare: list[str] = []
    for name, field in model.model_fields.items():
        if not field.is_required() and field.default is None:
            rare.append(name)
            continue
        strategy = of_annotation(field.annotation, list(field.metadata))
        (required if field.is_required() else usual)[name] = strategy
    common = st.fixed_dictionaries(required, optional=usual)
    if not rare:
        return common

    @st.composite
    def section(draw: st.DrawFn) -> dict[str, Any]:
        value: dict[str, Any] = draw(common)
        for name in draw(st.lists(st.sampled_from(rare), max_size=2, unique=True)):
            field = model.model_fields[name]
            value[name] = draw(of_annotation(field.annotation, list(field.metadata)))
        return value

    return section()


def without_rare(value: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A section with none of the fields that are None by default: few are in both backends."""
    fields = model.model_fields
    return {name: v for name, v in value.items() if fields[name].is_required()
            or fields[name].default is not None}  # fmt: skip


@st.composite
def recipes(draw: st.DrawFn, *, likely: bool) -> dict[str, Any]:
    """A recipe by its types; `likely` ones also keep to the main cross-field rules."""
    body: dict[str, Any] = draw(of_model(Recipe))
    body["native"] = {}
    if not likely:
        return body
    for name, model in SECTIONS.items():
        if name in body:
            body[name] = without_rare(body[name], model)
    body |= {"kernels": {}, "tokens": {}}
    stage = draw(st.sampled_from(STAGES))
    format = draw(st.sampled_from([f for f in STAGE_FORMATS[stage] if f not in ONE_BACKEND]))
    body["training"] |= {"stage": stage, "epochs": draw(st.floats(0.01, 100)), "steps": None,
                         "warmup_steps": 0, "evaluate": "never",
                         "early_stopping": None}  # fmt: skip
    body["data"] |= {
        "sources": [{"path": draw(texts), "format": format}],
        "validation": 0, "validation_sources": [], "train_on": "assistant",
        "chat_template": ALPACA if format == "alpaca" else draw(st.sampled_from(
            ["tokenizer", *(n for n, t in TEMPLATES.items() if t.axolotl and t.llamafactory)])),
        "overlong": "backend", "packing": False, "stop_tokens": [],
    }  # fmt: skip
    body["model"] |= {"quantization": "none", "attention": "sdpa"}
    body["distributed"] = draw(st.sampled_from(SPREAD))
    body["output"] = {"merge": draw(st.booleans())}
    return body


def loaded(body: dict[str, Any]) -> Any:
    document, findings = parse(dump(body), "recipe.yaml")
    return from_document(document, findings, Path("recipe.yaml"))


def same(left: Any, right: Any) -> bool:
    """Equal, with equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@QUIET
@given(st.dictionaries(texts, plain, max_size=4))
def test_what_is_written_is_read_back_by_both_readers(value: dict[str, Any]) -> None:
    text = dump(value)
    assert same(yaml.safe_load(text), value)
    document, findings = parse(text, "x.yaml")
    assert not findings
    assert same(document.value or {}, value)


@QUIET
@given(recipes(likely=False))
def test_a_recipe_by_its_types_loads_or_is_told(body: dict[str, Any]) -> None:
    assume("${" not in str(body))
    recipe = loaded(body).recipe
    again = loaded(recipe.model_dump(mode="json")).recipe
    assert again == recipe
    for name in BACKENDS:
        for finding in check(loaded({**body, "backend": name})):
            assert finding.code
            assert finding.place


@pytest.mark.parametrize("backend", list(BACKENDS))
@QUIET
@given(body=recipes(likely=True))
def test_a_valid_recipe_renders_to_yaml_that_means_the_same(
    backend: str, body: dict[str, Any]
) -> None:
    assume("${" not in str(body))
    found = loaded({**body, "backend": backend})
    assume(not has_errors(check(found)))
    for target in (Target(), Target("cpu", bf16=False)):
        for file in BACKENDS[backend].render(found.recipe, Paths(), target).files:
            if not file.name.endswith(".yaml"):
                continue
            value = yaml.safe_load(file.text)
            document, findings = parse(file.text, file.name)
            assert not findings
            assert same(document.value, value)
            assert same(yaml.safe_load(dump(value)), value)
            if file.name != "accelerate.yaml":
                assert set(value) <= set(BACKENDS[backend].native_keys())


def mutated(text: str, seed: int) -> bytes:
    """A valid recipe with something done to it."""
    chance = random.Random(seed)
    raw = bytearray(text.encode())
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    kind = chance.randrange(7)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2 and ":" in lines[at]:
        value = chance.choice([*TRAPS, "[]", "{}", "[[a]]", "{a: {b: c}}", "-1", "9" * 500, "*a"])
        lines[at] = f"{lines[at].split(':')[0]}: {value}"
    elif kind == 3:
        lines[at] = chance.choice(["  ", "\t", "-", "- "]) + lines[at]
    elif kind == 4:
        lines.insert(at, chance.choice(ODD_LINES))
    else:
        start = chance.randrange(len(raw))
        piece = chance.randbytes(chance.randrange(1, 5))
        raw[start : start + chance.randrange(4)] = piece
        return bytes(raw)
    return "\n".join(lines).encode()


@pytest.mark.parametrize("part", range(4))
def test_broken_recipes_are_told_and_never_raise(tmp_path: Path, part: int) -> None:
    originals = [file.read_text("utf-8") for file in sorted(shipped("recipes").glob("*.yaml"))]
    file = tmp_path / "r.yaml"
    for seed in range(part * 100, part * 100 + 100):
        file.write_bytes(mutated(originals[seed % len(originals)], seed))
        try:
            found = load(file)
        except RecipeError as error:
            told = error.findings
        else:
            told = tuple(find_problems(found))
        assert all(f.place and f.message for f in told), seed


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes_at_all(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.yaml"
    file.write_bytes(raw)
    with pytest.raises(RecipeError):
        load(file)


def _deep(text: str) -> bytes:
    return (text * 2000).encode()


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00", b"\xef\xbb\xbf", _deep("["), _deep("{a: "), _deep("- "), _deep("a:\n "),
     b"a: &a [*a]", b"a: &a {<<: *a}", b"&a a: *a", b"name: !!binary x", b"? [a]\n: b",
     b"model: &m {base: x}\ndata: *m", b"name: " + b"9" * 5000, b"a: 1e999999",
     b"a: 0x" + b"f" * 600,
     b"\xff\xfe", b"a: \"\\ud800\"", b"- a\n- b", b"a\n---\nb", b"%TAG ! x\n---\na"],
)  # fmt: skip
def test_broken_files(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(raw)
    with pytest.raises(RecipeError):
        load(file)
