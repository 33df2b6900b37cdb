"""`${SCRATCH}` in paths and names, and nowhere else.

A recipe names places that differ from machine to machine. Only fields that are paths or names take
variables; there are no defaults, no nesting and no expressions: a recipe means what it says.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.findings import Finding
from orchestrator.recipe.yaml_source import Document, Path_, dotted

FIELDS: tuple[tuple[str, ...], ...] = (
    ("model", "base"),
    ("data", "sources", "*", "path"),
    ("data", "validation_sources", "*", "path"),
    ("data", "chat_template"),
    ("output", "directory"),
    ("output", "push_to_hub"),
    ("tracking", "project"),
    ("tracking", "entity"),
    ("tracking", "run_name"),
    ("distributed", "deepspeed_file"),
    ("model", "tokenizer"),
    ("model", "cache_folder"),
    ("data", "prepared"),
    ("data", "registry"),
    ("data", "push_to"),
    ("data", "media", "folder"),
    ("output", "training_directory"),
    ("output", "checkpoints_to_hub"),
    ("output", "resume_from"),
    ("tracking", "mlflow_uri"),
    ("tracking", "mlflow_experiment"),
    ("tracking", "mlflow_run"),
    ("tracking", "comet_project"),
    ("tracking", "comet_workspace"),
    ("tracking", "trackio_project"),
    ("tracking", "trackio_space"),
    ("tracking", "swanlab_project"),
    ("tracking", "swanlab_run"),
    ("tracking", "swanlab_workspace"),
    ("native", "axolotl", "deepspeed"),
    ("native", "llamafactory", "deepspeed"),
)
"""The fields that take variables; `*` stands for every item of a list."""

VARIABLE = re.compile(r"\$\{([^}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(
    document: Document,
    environ: Mapping[str, str],
    fields: tuple[tuple[str, ...], ...] = FIELDS,
) -> list[Finding]:
    """Put the variables' values into those `fields` of `document` that take them.

    Findings: `FT108` a variable that is not set, or not a variable's name.
    """
    findings: list[Finding] = []
    for field in fields:
        for owner, key, path in _places(document.value, field, ()):
            text = owner[key]
            if isinstance(text, str) and "${" in text:
                owner[key], problems = _expanded(text, environ)
                findings += [
                    Finding("FT108", "error", message, document.place(path), dotted(path), fix)
                    for message, fix in problems
                ]
    return findings


def _places(value: Any, field: tuple[str, ...], path: Path_) -> Iterator[tuple[Any, Any, Path_]]:
    """Every (container, key, path) that a pattern of `FIELDS` means in `value`."""
    first, rest = field[0], field[1:]
    keys: list[Any] = []
    if first == "*" and isinstance(value, list):
        keys = list(range(len(value)))
    elif isinstance(value, dict) and first in value:
        keys = [first]
    for key in keys:
        if rest:
            yield from _places(value[key], rest, (*path, key))
        else:
            yield value, key, (*path, key)


def _expanded(text: str, environ: Mapping[str, str]) -> tuple[str, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if not NAME.fullmatch(name):
            problems.append((f"${{{name}}} is not a variable's name", "write ${NAME}, no more"))
            return match.group(0)
        if not environ.get(name):
            problems.append((f"the variable {name} is not set", f"export {name}=..."))
            return match.group(0)
        return environ[name]

    return VARIABLE.sub(value, text), problems
