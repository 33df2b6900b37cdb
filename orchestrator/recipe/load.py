"""From a file to a `Recipe`, or to all that is wrong with it at once.

Findings: `FT101` unknown key, `FT102` wrong type, `FT103` out of range or not one of the choices,
`FT104` missing, `FT105` not a mapping, `FT106` a bad `--set`, `FT107` a bad `extends`,
`FT108` a variable that is not set.
"""

import difflib
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.findings import Finding, Place, RecipeError, errors_of
from orchestrator.recipe.inherit import KEY, with_base
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.variables import expand
from orchestrator.recipe.yaml_source import Document, Path_, dotted, parse, read_text


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid recipe with the document it came from, for the places of later findings."""

    recipe: Recipe
    document: Document
    file: Path

    def place(self, field: str) -> Place:
        """Where a dotted field stands."""
        return self.document.place(split_field(field))


def load(file: Path, *, overrides: Sequence[str] = (), backend: str | None = None) -> Loaded:
    """Read, override and validate a recipe.

    Raises:
        RecipeError: with every finding, if the recipe cannot be used.
    """
    text, findings = read_text(file)
    if findings:
        raise RecipeError(findings)
    document, findings = parse(text, str(file))
    return from_document(document, findings, file, overrides=overrides, backend=backend)


OWN = {"model", "data", "training", "name", KEY}
"""Sections of which a recipe has one."""


def _foreign(document: Document, file: Path) -> Finding | None:
    """What to say of a file that is something else's configuration."""
    if OWN & set(document.value):
        return None
    from orchestrator.importing.detect import detect

    kind = detect(document.value)
    if kind.kind in ("recipe", "other"):
        return None
    advice = f"ft recipe import {file}" if kind.training else kind.advice
    return Finding(
        "FT105", "error", f"this is {kind.label}, not a recipe", Place(str(file), 1, 1), fix=advice
    )


def from_document(
    document: Document,
    findings: list[Finding],
    file: Path,
    *,
    overrides: Sequence[str] = (),
    backend: str | None = None,
) -> Loaded:
    """Validate a parsed document; see `load`."""
    if any(finding.code != "FT004" for finding in findings):
        raise RecipeError(findings)
    if not isinstance(document.value, dict):
        what = "empty" if document.value is None else "no mapping of sections"
        raise RecipeError(
            [
                *findings,
                Finding(
                    "FT105",
                    "error",
                    f"the recipe is {what}",
                    Place(str(file), 1, 1),
                    fix="start from a shipped one: `ft recipe new`",
                ),
            ]
        )
    foreign = _foreign(document, file)
    if foreign:
        raise RecipeError([*findings, foreign])
    if KEY in document.value:
        findings += with_base(document, file)
        if errors_of(findings):
            raise RecipeError(sorted(findings, key=_position))
    for override in (*overrides, *((f"backend={backend}",) if backend else ())):
        findings += apply_override(document, override)
    findings += expand(document, os.environ)
    recipe, problems = validate(document)
    findings += problems
    if recipe is None or errors_of(findings):
        raise RecipeError(sorted(findings, key=_position))
    return Loaded(recipe, document, file)


def _position(finding: Finding) -> tuple[int, int]:
    place = finding.place
    return (place.line, place.column) if place else (0, 0)


def validate(document: Document) -> tuple[Recipe | None, list[Finding]]:
    """The recipe, or None and what pydantic found, each with its place."""
    try:
        return Recipe.model_validate(document.value), []
    except ValidationError as error:
        findings = [_finding(dict(problem), document) for problem in error.errors()]
        return None, _without_echoes(findings)


def _without_echoes(findings: Sequence[Finding]) -> list[Finding]:
    """One finding per mistake.

    A union reports a value once per alternative, a list with one bad item also counts as too
    short, and a misspelled key is also missing under its right name.
    """
    kept: dict[tuple[str, Place | None], Finding] = {}
    unknown = " ".join(f.message for f in findings if f.code == "FT101")
    for finding in findings:
        key = (finding.field, finding.place)
        inside = any(
            f.field.startswith((f"{finding.field}[", f"{finding.field}.")) for f in findings
        )
        if finding.code == "FT103" and inside:
            continue
        if finding.code == "FT104" and f"(did you mean {finding.field.split('.')[-1]!r}?)" in (
            unknown
        ):
            continue
        if key in kept and kept[key].code == "FT102" and finding.code == "FT103":
            kept[key] = finding
        kept.setdefault(key, finding)
    return list(kept.values())


def _finding(problem: dict[str, Any], document: Document) -> Finding:
    path = _path_in(document.value, problem["loc"])
    kind, value, context = problem["type"], problem.get("input"), problem.get("ctx") or {}
    field = dotted(path)
    if kind == "extra_forbidden":
        message, fix = _unknown(path)
        place = document.place(path, key=True)
        return Finding("FT101", "error", message, place, field=field, fix=fix)
    if kind == "missing":
        parent = dotted(path[:-1])
        where = f" in {parent}" if parent else ""
        return Finding(
            "FT104",
            "error",
            f"{path[-1]!r} is missing{where}",
            document.place(path[:-1], key=bool(parent)),
            field=field,
            fix=_describe(path),
        )
    code, message, fix = _explain(kind, value, context, problem["msg"])
    return Finding(code, "error", f"{field}: {message}", document.place(path), field=field, fix=fix)


def _path_in(value: Any, location: Sequence[str | int]) -> Path_:
    """`location` without what pydantic adds for unions and for keys of dicts."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(value, dict):
            if part == "[key]":
                continue
            if part in value:
                value = value[part]
            elif not last or "[" in str(part):
                continue
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
    return tuple(path)


def _unknown(path: Path_) -> tuple[str, str]:
    key = str(path[-1])
    model = model_at(path[:-1])
    names = list(model.model_fields) if model else []
    where = dotted(path[:-1])
    message = f"unknown key {key!r}" + (f" in {where}" if where else "")
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if close:
        return f"{message} (did you mean {close[0]!r}?)", ""
    homes = [home for home in fields_named(key) if home.rpartition(".")[0] != where]
    if homes:
        return f"{message} (did you mean {homes[0]!r}?)", f"move it: {homes[0]}"
    far = difflib.get_close_matches(key, all_fields().keys(), n=1, cutoff=0.75)
    if far:
        return f"{message} (did you mean {all_fields()[far[0]][0]!r}?)", ""
    return message, f"known here: {', '.join(names)}" if names else ""


def _explain(kind: str, value: Any, context: dict[str, Any], text: str) -> tuple[str, str, str]:
    """Code, message and fix for pydantic's error kinds."""
    got = _shown(value)
    if kind in ("int_type", "int_parsing", "int_from_float"):
        fix = "remove the quotes" if isinstance(value, str) and value.strip("+-").isdigit() else ""
        return "FT102", f"a whole number is needed, not {got}", fix
    if kind in ("float_type", "float_parsing"):
        return "FT102", f"a number is needed, not {got}", _unquote(value)
    if kind in ("string_type",):
        fix = f'put it into quotes: "{value}"' if isinstance(value, (int, float, bool)) else ""
        return "FT102", f"text is needed, not {got}", fix
    if kind in ("bool_type", "bool_parsing"):
        return "FT102", f"true or false is needed, not {got}", ""
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "FT102", f"a section with keys is needed, not {got}", ""
    if kind in ("tuple_type", "list_type"):
        return "FT102", f"a list is needed, not {got}", "write [a, b] or one `- item` per line"
    if kind == "literal_error":
        choices = _choices(context.get("expected", ""))
        close = difflib.get_close_matches(str(value).lower(), choices, n=1, cutoff=0.5)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        return "FT103", f"{got} is not one of {', '.join(choices)}{guess}", ""
    limits = {
        "greater_than": "gt",
        "greater_than_equal": "ge",
        "less_than": "lt",
        "less_than_equal": "le",
    }
    if kind in limits:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}[limits[kind]]
        return "FT103", f"must be {words} {context[limits[kind]]}, not {got}", ""
    if kind in ("too_short", "string_too_short"):
        return "FT103", "must not be empty", ""
    if kind == "finite_number":
        return "FT103", f"must be a finite number, not {got}", ""
    if kind == "string_pattern_mismatch":
        return "FT103", f"{got} may have letters, digits, '.', '_' and '-' only", ""
    return "FT103", f"{text[:1].lower()}{text[1:]} (got {got})", ""


def _choices(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _unquote(value: Any) -> str:
    try:
        float(value)
    except (TypeError, ValueError):
        return ""
    return "remove the quotes" if isinstance(value, str) else ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _describe(path: Path_) -> str:
    model = model_at(path[:-1])
    field = model.model_fields.get(str(path[-1])) if model else None
    return f"{path[-1]}: {field.description}" if field and field.description else ""


def split_field(field: str) -> Path_:
    """`data.sources[0].path` (or `data.sources.0.path`) as a path."""
    parts = field.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts if part)


def apply_override(document: Document, override: str) -> list[Finding]:
    """Put one `--set key=value` into the document; the value is read as YAML."""
    place = Place(f"--set {override}")
    key, separator, text = override.partition("=")
    path = split_field(key.strip())
    if not separator or not path or "" in key.replace("[", ".").replace("]", "").strip().split("."):
        return [
            Finding("FT106", "error", "must be key=value", place, fix="--set training.epochs=3")
        ]
    parsed, findings = parse(text, place.file)
    if findings:
        return [Finding("FT106", "error", findings[0].message, place)]
    target = document.value
    for index, part in enumerate(path[:-1]):
        child = _child(target, part)
        if child is None and isinstance(target, dict):
            child = target[str(part)] = {}
        if not isinstance(child, (dict, list)):
            return [
                Finding(
                    "FT106",
                    "error",
                    f"{dotted(path[: index + 1])!r} is not a section of this recipe",
                    place,
                )
            ]
        target = child
    last = path[-1]
    if isinstance(target, dict):
        target[str(last)] = parsed.value
    elif isinstance(last, int) and last < len(target):
        target[last] = parsed.value
    else:
        return [Finding("FT106", "error", f"there is no {dotted(path)!r} in this recipe", place)]
    for known in [p for p in document.values if p[: len(path)] == path]:
        document.values[known] = place
    document.values[path] = document.keys[path] = place
    return []


def _child(target: Any, part: str | int) -> Any:
    if isinstance(target, dict):
        return target.get(str(part))
    if isinstance(target, list) and isinstance(part, int) and part < len(target):
        return target[part]
    return None


def model_at(path: Path_) -> type[BaseModel] | None:
    """The section model that stands at `path` of a recipe."""
    current: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
        field = current.model_fields.get(str(part))
        if field is None:
            return None
        current = _section_in(field.annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current
    return None


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = typing.get_origin(annotation)
    if origin in (tuple, list, typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            found = _section_in(argument)
            if found is not None:
                return found
    return None


def all_fields() -> dict[str, list[str]]:
    """Every field name of the recipe with the dotted places where it occurs."""
    if not _FIELDS:
        _collect(Recipe, "", _FIELDS)
    return _FIELDS


_FIELDS: dict[str, list[str]] = {}


def _collect(model: type[BaseModel], prefix: str, into: dict[str, list[str]]) -> None:
    for name, field in model.model_fields.items():
        into.setdefault(name, []).append(f"{prefix}{name}")
        section = _section_in(field.annotation)
        if section is not None:
            many = "[]" if typing.get_origin(field.annotation) is tuple else ""
            _collect(section, f"{prefix}{name}{many}.", into)


def fields_named(name: str) -> list[str]:
    """Where a field of this name exists."""
    return all_fields().get(name, [])
