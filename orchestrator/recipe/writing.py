"""Writing recipes for people: with their comments, and checked before they are written."""

import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator import yaml_out
from orchestrator.files import write_atomic
from orchestrator.findings import RecipeError, errors_of
from orchestrator.recipe.load import from_document, load
from orchestrator.recipe.sources import find_recipe
from orchestrator.recipe.yaml_source import parse


def copy_of(name: str, template: str, overrides: Sequence[str], backend: str | None) -> str:
    """A recipe's text under another name; comments stay where nothing else changes.

    Raises:
        UsageError: there is no such recipe.
        RecipeError: it cannot be used.
    """
    source = find_recipe(template)
    text = source.read_text("utf-8")
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)
    text = re.sub(rf"(ft recipe run )(?:{re.escape(template)})\b", rf"\g<1>{name}", text)
    if overrides or backend:
        loaded = load(source, overrides=[*overrides, f"name={name}"], backend=backend)
        head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        body = loaded.recipe.model_dump(mode="json", exclude_unset=True)
        text = f"{head}\n{yaml_out.dump(body)}"
    return text


def write_new(target: Path, text: str, overrides: Sequence[str] = ()) -> None:
    """Write a recipe that passes, and only such a one.

    Raises:
        RecipeError: it would not pass.
    """
    from orchestrator.problems import find_problems
    from orchestrator.recipe.composing import commented

    document, findings = parse(text, str(target))
    loaded = from_document(document, findings, target, overrides=overrides)
    if overrides:
        head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        body = loaded.recipe.model_dump(mode="json", exclude_unset=True)
        text = "\n".join([head, *commented(body), ""])
    problems = find_problems(loaded)
    if errors_of(problems):
        raise RecipeError(problems)
    write_atomic(target, text)
