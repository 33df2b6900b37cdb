"""What pydantic has against a document, one finding per mistake, with places and did-you-mean.

It knows no recipe: `root` is the model of what was read (a recipe, a cluster profile).
"""

import difflib
import types
import typing
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.findings import Finding, Place
from orchestrator.recipe.yaml_source import Document, Path_, dotted


def explain(error: ValidationError, document: Document, root: type[BaseModel]) -> list[Finding]:
    """All that is wrong, each with its place."""
    return without_echoes([finding_of(dict(p), document, root) for p in error.errors()])


def without_echoes(findings: Sequence[Finding]) -> list[Finding]:
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


def finding_of(problem: dict[str, Any], document: Document, root: type[BaseModel]) -> Finding:
    """What pydantic found, in words, with its place and a way out."""
    path = _path_in(document.value, problem["loc"])
    kind, value, context = problem["type"], problem.get("input"), problem.get("ctx") or {}
    field = dotted(path)
    if kind == "extra_forbidden":
        message, fix = _unknown(path, root)
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
            fix=_describe(path, root),
        )
    code, message, fix = _explain(kind, value, context, problem["msg"])
    message = f"{field}: {message}" if field else message
    return Finding(code, "error", message, document.place(path), field=field, fix=fix)


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


def _unknown(path: Path_, root: type[BaseModel]) -> tuple[str, str]:
    key = str(path[-1])
    model = model_under(root, path[:-1])
    names = list(model.model_fields) if model else []
    where = dotted(path[:-1])
    message = f"unknown key {key!r}" + (f" in {where}" if where else "")
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if close:
        return f"{message} (did you mean {close[0]!r}?)", ""
    homes = [home for home in all_fields(root).get(key, []) if home.rpartition(".")[0] != where]
    if homes:
        return f"{message} (did you mean {homes[0]!r}?)", f"move it: {homes[0]}"
    far = difflib.get_close_matches(key, all_fields(root).keys(), n=1, cutoff=0.75)
    if far:
        return f"{message} (did you mean {all_fields(root)[far[0]][0]!r}?)", ""
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
    if kind == "value_error":  # one of our own validators, which says it in words
        return "FT103", str(context["error"]), ""
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


def _describe(path: Path_, root: type[BaseModel]) -> str:
    model = model_under(root, path[:-1])
    field = model.model_fields.get(str(path[-1])) if model else None
    return f"{path[-1]}: {field.description}" if field and field.description else ""


def model_under(root: type[BaseModel], path: Path_) -> type[BaseModel] | None:
    """The section model that stands at `path` of a document of the model `root`."""
    current: Any = root
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


@cache
def all_fields(root: type[BaseModel]) -> dict[str, list[str]]:
    """Every field name of the model with the dotted places where it occurs."""
    found: dict[str, list[str]] = {}
    _collect(root, "", found)
    return found


def _collect(model: type[BaseModel], prefix: str, into: dict[str, list[str]]) -> None:
    for name, field in model.model_fields.items():
        into.setdefault(name, []).append(f"{prefix}{name}")
        section = _section_in(field.annotation)
        if section is not None:
            many = "[]" if typing.get_origin(field.annotation) is tuple else ""
            _collect(section, f"{prefix}{name}{many}.", into)
