"""A recipe in the making: plain data, field by field, until it is valid."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.backends import fields
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sections.base import Section

ROUNDS = 40
"""Fields taken back at most before a draft is given up."""


class Draft:
    """Fields of a recipe by dotted name."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}

    def put(self, field: str, value: Any) -> None:
        """Set a field, unless there is nothing to set."""
        if value is not None:
            fields.put(self.document, field, value)

    def leave(self, field: str) -> None:
        """Say that a field is left to the backend."""
        fields.put(self.document, field, None)

    def pairs(self, config: Mapping[str, Any], backend: str) -> None:
        """Every field that is one key of the backend."""
        for key, field in fields.by_key(backend).items():
            value = fields.take(config, key)
            if value is not None and value not in ({}, []):
                self.put(field, fields.neutral_value(backend, key, value))

    def settle(self) -> tuple[Recipe | None, list[str]]:
        """The recipe, without the fields whose values do not fit (they stay native).

        The second value names fields that have to be there and do not fit.
        """
        for _ in range(ROUNDS):
            try:
                return Recipe.model_validate(self.document), []
            except ValidationError as error:
                problems = [
                    (_known_part(problem["loc"], self.document), problem["type"] == "missing")
                    for problem in error.errors()
                ]
                missing = [".".join(map(str, path)) for path, absent in problems if absent]
                removed = [self._remove(path) for path, absent in problems if not absent]
                if missing or not any(removed):
                    return None, missing or [".".join(map(str, problems[0][0]))]
        return None, ["name"]

    def _remove(self, path: tuple[str | int, ...]) -> bool:
        """Take one field back; False if it is not there, or gone already."""
        target: Any = self.document
        for part in path[:-1]:
            if isinstance(target, dict) and part not in target:
                return False
            target = target[part]
        if not path or not isinstance(target, dict) or path[-1] not in target:
            return False
        del target[path[-1]]
        return True

    def ordered(self) -> dict[str, Any]:
        """The document in the order of the model, for people."""
        return _ordered(Recipe, self.document)


def _known_part(location: tuple[str | int, ...], document: Any) -> tuple[str | int, ...]:
    """Where an error is in the document: pydantic adds the alternatives of unions."""
    path: list[str | int] = []
    value = document
    for index, part in enumerate(location):
        if isinstance(value, dict) and part in value:
            value = value[part]
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            if not isinstance(value[part], dict):
                break
            value = value[part]
            path.append(part)
        else:
            if isinstance(value, dict) and index == len(location) - 1 and part != "[key]":
                path.append(part)
            break
    return tuple(path)


def _ordered(model: type[BaseModel], document: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if name not in document:
            continue
        value = document[name]
        section = _section(info.annotation)
        if section and isinstance(value, dict):
            value = _ordered(section, value)
        elif section and isinstance(value, list):
            value = [_ordered(section, item) for item in value]
        result[name] = value
    return result


def _section(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section(inner)
        if found:
            return found
    return None
