"""The text that was trained against the text that a chat template makes when the model is served.

The template is the tokenizer's own Jinja text, rendered as transformers renders it (transformers,
`utils/chat_template_utils.py`: a sandbox, trimmed blocks, `raise_exception`, `strftime_now`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.files import read_json

AROUND = 40
"""Characters shown on each side of a difference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two texts part: what both have before, and how each goes on."""

    row: int
    before: str
    trained: str
    served: str
    kind: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


class ChatTemplate:
    """A tokenizer's chat template."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.tokens = dict(tokens)
        self.template = environment.from_string(source)

    @staticmethod
    def of(folder: Path) -> "ChatTemplate | None":
        """The template of a saved tokenizer; None if it has none, or none that can be read."""
        from jinja2.exceptions import TemplateError

        config = read_json(folder / "tokenizer_config.json")
        config = config if isinstance(config, dict) else {}
        file = folder / "chat_template.jinja"
        source: Any = config.get("chat_template")
        if file.is_file():
            source = file.read_text("utf-8")
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source}
            source = named.get("default")
        if not isinstance(source, str) or not source:
            return None
        tokens = {
            name: value.get("content", "") if isinstance(value, dict) else value
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, (str, dict))
        }
        try:
            return ChatTemplate(source, tokens)
        except TemplateError:
            return None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The text of a conversation; None if the template refuses it."""
        try:
            return self.template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=False,
                **self.tokens,
            )
        except Exception:  # a template is a program of somebody else
            return None


def _closed(text: str, controls: Sequence[str]) -> str:
    text = text.rstrip()
    while ending := next((token for token in controls if token and text.endswith(token)), ""):
        text = text.removesuffix(ending).rstrip()
    return text


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def difference(
    row: int, trained: str, served: str, controls: Sequence[str] = ()
) -> Difference | None:
    """The first difference of two texts.

    White space and control tokens at the very end do not count: what follows the last stop token
    is never generated.
    """
    trained, served = _closed(trained, controls), _closed(served, controls)
    if trained == served:
        return None
    at = next(
        (i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b),
        min(len(trained), len(served)),
    )
    return Difference(
        row,
        trained[max(at - AROUND, 0) : at],
        trained[at : at + AROUND],
        served[at : at + AROUND],
        "white space" if trained.split() == served.split() else "text",
    )
