"""What is left at the end, who is told, and native keys (`FT216`-`FT218`)."""

import difflib
import re
from collections.abc import Iterator

from orchestrator.backends.registry import BACKENDS
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


def output(recipe: Recipe) -> Iterator[Finding]:
    """What is pushed must be made first."""
    out = recipe.output
    if out.push_to_hub and not out.export:
        yield Finding(
            "FT216",
            "error",
            "only an export can be pushed",
            field="output.push_to_hub",
            fix="--set output.export=true",
        )
    if out.push_to_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", out.push_to_hub):
        yield Finding(
            "FT216", "error", "a hub repository is written user/name", field="output.push_to_hub"
        )
    tracking = recipe.tracking
    if tracking.type != "wandb" and (tracking.project or tracking.entity):
        yield Finding(
            "FT217",
            "warning",
            "project and entity are wandb's",
            field="tracking",
            fix="--set tracking.type=wandb",
        )


def native(recipe: Recipe) -> Iterator[Finding]:
    """Native keys exist in the pinned release."""
    for name, backend in BACKENDS.items():
        block = getattr(recipe.native, name)
        known = backend.native_keys() if block else {}
        for key in block:
            if key in known:
                continue
            close = difflib.get_close_matches(key, known, n=1)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            yield Finding(
                "FT218",
                "error",
                f"{backend.label} has no key {key!r}{guess}",
                field=f"native.{name}.{key}",
            )


def backend(recipe: Recipe) -> Iterator[Finding]:
    """What the chosen backend cannot do."""
    yield from BACKENDS[recipe.backend].findings(recipe)
