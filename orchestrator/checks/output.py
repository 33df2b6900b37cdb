"""What is left at the end, who is told, and native keys (`FT216`-`FT218`, `FT241`)."""

import difflib
import re
from collections.abc import Iterator

from orchestrator.backends.registry import BACKENDS
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

SECRET = re.compile(r"(?i)(^|_)(token|api_key|password|secret)$")
OWNED = {
    "output_dir": "every run has a folder of its own (output.directory)",
    "overwrite_output_dir": "every run has a folder of its own",
    "dataset_prepared_path": "prepared data is named by its content",
    "tokenized_path": "prepared data is named by its content",
    "resume_from_checkpoint": "use `ft recipe run --resume`",
    "auto_resume_from_checkpoints": "use `ft recipe run --resume`",
    "hub_model_id": "use output.push_to_hub",
    "push_to_hub": "use output.push_to_hub",
}
"""Native keys that would move what ft looks after, and what to use instead."""


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


def resuming(recipe: Recipe) -> Iterator[Finding]:
    """A run goes on from its own checkpoints; other files may name one (`ft recipe render`)."""
    for name in ("resume_from", "auto_resume"):
        if getattr(recipe.output, name):
            yield Finding(
                "FT241",
                "error",
                f"a run cannot have output.{name}: it would go on from what is not its own",
                field=f"output.{name}",
                fix="remove it and use `ft recipe run --resume`, or `ft recipe render`",
            )


def native(recipe: Recipe) -> Iterator[Finding]:
    """Native keys exist in the pinned release, and leave alone what ft looks after."""
    for name, backend in BACKENDS.items():
        block = getattr(recipe.native, name)
        known = backend.native_keys() if block else {}
        for key, value in block.items():
            secret = SECRET.search(key) and not isinstance(value, bool)
            if secret or key in OWNED:
                why = "a secret belongs into the environment" if secret else OWNED[key]
                yield Finding(
                    "FT241",
                    "error",
                    f"{key!r} cannot be set here: {why}",
                    field=f"native.{name}.{key}",
                )
            elif key not in known:
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
