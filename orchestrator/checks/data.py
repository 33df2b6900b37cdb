"""Formats, columns and chat templates (`FT206`-`FT210`, `FT222`)."""

import difflib
import re
from collections.abc import Iterator

from orchestrator.backends.registry import BACKENDS
from orchestrator.findings import Finding
from orchestrator.recipe.models import COLUMNS, STAGE_FORMATS, Recipe
from orchestrator.smoke import FAMILIES
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

CONVERSATIONS = {"messages", "sharegpt", "preference"}
INSTRUCT = re.compile(
    r"(?i)(?<![a-z])(instruct|chat|it|sft|dpo|rlhf|hermes|zephyr|tulu|vicuna|orca|r1|thinking)(?![a-z])"
)
WITHOUT_TEMPLATE = ("mistral", "llama2", "llama3", "gemma")
"""Families whose base models (not instruct) come without a chat template."""


def data_formats(recipe: Recipe) -> Iterator[Finding]:
    """Formats fit the stage, columns fit the format."""
    stage = recipe.training.stage
    fitting = STAGE_FORMATS[stage]
    for field, source in recipe.data.all_sources():
        if source.format not in fitting:
            yield Finding(
                "FT206",
                "error",
                f"{stage} cannot train on {source.format} rows",
                field=f"{field}.format",
                fix=f"format: {' or '.join(fitting)}",
            )
        for role in source.columns:
            if role not in COLUMNS[source.format]:
                yield Finding(
                    "FT207",
                    "error",
                    f"{source.format} rows have no column {role!r}",
                    field=f"{field}.columns.{role}",
                    fix=f"columns of {source.format}: {', '.join(COLUMNS[source.format])}",
                )
        if source.roles and source.format not in ("messages", "sharegpt", "preference"):
            yield Finding(
                "FT207", "error", f"{source.format} rows have no roles", field=f"{field}.roles"
            )


def chat_template(recipe: Recipe) -> Iterator[Finding]:
    """The template exists for the backend and fits the data."""
    name = recipe.data.chat_template
    backend = BACKENDS[recipe.backend]
    known = TEMPLATES.get(name)
    formats = {s.format for _, s in recipe.data.all_sources() if not (s.chat_template or s.prompt)}
    if name.endswith(".jinja") or name in (TOKENIZER, ALPACA):
        pass
    elif known:
        if getattr(known, recipe.backend) is None:
            yield Finding(
                "FT208",
                "error",
                f"{backend.label} has no template {name!r}",
                field="data.chat_template",
            )
        elif known.differs and formats & {"messages", "sharegpt", "preference"}:
            yield Finding(
                "FT209", "note", f"template {name!r}: {known.differs}", field="data.chat_template"
            )
    elif name not in backend.template_names():
        names = [TOKENIZER, ALPACA, *TEMPLATES, *backend.template_names()]
        close = difflib.get_close_matches(name, names, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        yield Finding(
            "FT208",
            "error",
            f"unknown chat template {name!r}{guess}",
            field="data.chat_template",
            fix=f"one of {', '.join([TOKENIZER, ALPACA, *TEMPLATES])}, a .jinja file, or "
            f"one of {backend.label}'s own names",
        )
    if name == ALPACA and formats & {"messages", "sharegpt", "preference"}:
        yield Finding(
            "FT210",
            "error",
            "the Alpaca prompt cannot hold conversations",
            field="data.chat_template",
            fix="chat_template: tokenizer",
        )
    if name == TOKENIZER and "alpaca" in formats:
        yield Finding(
            "FT210",
            "error",
            "instruction rows need a prompt of their own",
            field="data.chat_template",
            fix="chat_template: alpaca",
        )


def template_of_model(recipe: Recipe) -> Iterator[Finding]:
    """By its name, the model has this template, and the token that ends its turns.

    A template of another family has stop tokens that this tokenizer takes for several: axolotl
    refuses them, LLaMA-Factory adds them as new tokens that nothing has trained.
    """
    name, base = recipe.data.chat_template, recipe.model.base.rstrip("/").rsplit("/", 1)[-1]
    formats = {s.format for s in recipe.data.sources if not s.chat_template}
    if not formats & CONVERSATIONS or recipe.model.tokenizer:
        return
    family = recipe.model.family or next(
        (family for pattern, family in FAMILIES if re.search(pattern, base.lower())), None
    )
    known = TEMPLATES.get(name)
    if known and family and known.families and family not in known.families:
        own = [other for other, t in TEMPLATES.items() if family in t.families]
        yield Finding(
            "FT222",
            "warning",
            f"template {name!r} is not one of {base} ({family}): its tokenizer may not know "
            f"{known.stop or 'its tokens'}",
            field="data.chat_template",
            fix=f"--set data.chat_template={(own or [TOKENIZER])[0]}",
        )
    if name == TOKENIZER and family in WITHOUT_TEMPLATE and not INSTRUCT.search(base):
        own = [other for other, t in TEMPLATES.items() if family in t.families]
        yield Finding(
            "FT222",
            "warning",
            f"{base} looks like a base model, whose tokenizer has no chat template",
            field="data.chat_template",
            fix=f"--set data.chat_template={(own or ['chatml'])[0]}",
        )
