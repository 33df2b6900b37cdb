"""Writing down types, choices and defaults of a backend's settings, so that files stay stable."""

import enum
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from .request import Request, Result, optional_text

SIMPLE = (str, int, float, bool, type(None))


def type_name(annotation: Any) -> str:
    """A type as short text: ``int | null``, ``list[str]``, ``FSDPConfig``."""
    origin = get_origin(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is Any:
        return "any"
    if origin is typing.Annotated:
        return type_name(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_name(part) for part in get_args(annotation)))
    if origin is Literal:
        return " | ".join(dict.fromkeys(type_name(type(v)) for v in get_args(annotation)))
    if origin is not None:
        inner = ", ".join(type_name(part) for part in get_args(annotation))
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "str" if issubclass(annotation, str) else annotation.__name__
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__name__", str(annotation))


def parts(annotation: Any) -> list[Any]:
    """The annotation and every annotation inside it."""
    found = [annotation]
    if get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            found.extend(parts(inner))
    return found


def choices(annotation: Any) -> list[Any]:
    """The values that an annotation allows, where it lists them."""
    found: list[Any] = []
    for part in parts(annotation):
        if get_origin(part) is Literal:
            found.extend(get_args(part))
        elif isinstance(part, type) and issubclass(part, enum.Enum):
            found.extend(member.value for member in part)
    return list(dict.fromkeys(simple(value) for value in found if simple(value) is not None))


def simple(value: Any) -> Any:
    """The value if JSON can hold it as it is, else None."""
    if isinstance(value, enum.Enum):
        return simple(value.value)
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, SIMPLE) for item in value):
        return list(value)
    return None


def one_key_per_line(value: dict[str, Any], depth: int = 0) -> str:
    """JSON whose diff between two releases shows one line per changed setting.

    Mappings are opened up to the level of the settings and closed below it.
    """
    pad = " " * (depth + 1)
    lines = []
    for key, item in value.items():
        groups = isinstance(item, dict) and any(isinstance(v, dict) for v in item.values())
        body = (
            one_key_per_line(item, depth + 1)
            if groups
            else json.dumps(item, ensure_ascii=False, separators=(", ", ": "))
        )
        lines.append(f"{pad}{json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def write_key_file(request: Request, listed: Result) -> Result:
    """Write the list to ``output`` too, if the request names one, and return it."""
    output = optional_text(request, "output")
    if output is not None:
        Path(output).write_text(one_key_per_line(listed) + "\n", encoding="utf-8")
    return listed
