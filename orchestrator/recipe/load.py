"""From a file to a `Recipe`, or to all that is wrong with it at once.

Findings: `FT101` unknown key, `FT102` wrong type, `FT103` out of range or not one of the choices,
`FT104` missing, `FT105` not a mapping, `FT106` a bad `--set`, `FT107` a bad `extends`,
`FT108` a variable that is not set.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.findings import Finding, Place, RecipeError, errors_of
from orchestrator.recipe.explaining import explain, model_under
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
        return None, explain(error, document, Recipe)


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
    return model_under(Recipe, path)
