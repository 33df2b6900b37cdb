"""Writing recipes for people: with their comments, and checked before they are written."""

import re
from pathlib import Path

from orchestrator import yaml_out
from orchestrator.checks import check
from orchestrator.errors import UsageError
from orchestrator.files import write_atomic
from orchestrator.findings import RecipeError, errors_of
from orchestrator.recipe.load import from_document, load
from orchestrator.recipe.sources import find_recipe
from orchestrator.recipe.yaml_source import parse


def new_recipe(
    name: str, template: str, target: Path, overrides: list[str], backend: str | None
) -> None:
    """Write a copy of a recipe under another name; comments stay where nothing else changes.

    Raises:
        UsageError: there is such a file already.
        RecipeError: the result would not pass.
    """
    if target.exists():
        raise UsageError(f"{target} exists", hint="choose another name, or --out")
    source = find_recipe(template)
    text = source.read_text("utf-8")
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)
    text = re.sub(rf"(ft recipe run )(?:{re.escape(template)})\b", rf"\g<1>{name}", text)
    if overrides or backend:
        loaded = load(source, overrides=[*overrides, f"name={name}"], backend=backend)
        head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        body = loaded.recipe.model_dump(mode="json", exclude_unset=True)
        text = f"{head}\n{yaml_out.dump(body)}"
    document, findings = parse(text, str(target))
    loaded = from_document(document, findings, target)
    problems = check(loaded)
    if errors_of(problems):
        raise RecipeError(problems)
    write_atomic(target, text)
