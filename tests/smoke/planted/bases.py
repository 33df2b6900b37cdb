"""Small base models without weights: tokenizer, chat template, the ids that configs repeat.

A preprocess reads nothing else of a base, so none of this needs torch, and all families together
are made in a second or two.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.probe.ftprobe.families import FAMILIES, Family
from orchestrator.probe.ftprobe.twin import shrink, token_settings
from orchestrator.probe.ftprobe.twin_tokenizer import write_tokenizer

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

MISTRAL_V1 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- ' [INST] ' + message.content + ' [/INST]' -}}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content + eos_token -}}
{%- else -%}
{{- raise_exception('only user and assistant turns') -}}
{%- endif -%}
{%- endfor -%}
"""

ALL: dict[str, Family] = {
    "chatml": replace(FAMILIES["qwen2"], chat_template=CHATML),
    # a Llama 2 that was given ChatML's tokens, as OpenHermes and Dolphin have them
    "chatml-llama": replace(
        FAMILIES["llama2"],
        trailing=("<|im_end|>", "<|im_start|>"),
        eos="<|im_end|>",
        pad="</s>",
        stops=("<|im_end|>", "</s>"),
        chat_template=CHATML,
    ),
    "llama3": FAMILIES["llama3"],
    "mistral-v1": replace(
        FAMILIES["mistral"], leading=("<unk>", "<s>", "</s>"), chat_template=MISTRAL_V1
    ),
    "mistral-v3": FAMILIES["mistral"],
    "gemma": FAMILIES["gemma"],
    "phi3": FAMILIES["phi3"],
    "qwen2": FAMILIES["qwen2"],
    "qwen3": FAMILIES["qwen3"],
    "plain": replace(FAMILIES["llama2"], chat_template=""),
}
"""Families by the names of their templates."""


@dataclass(frozen=True)
class Base:
    """A family with what a mistake changes of it."""

    family: str
    chat_template: str | None = None
    without: tuple[str, ...] = ()
    """Control tokens that the tokenizer lacks."""
    stops: tuple[str, ...] | None = None
    """Tokens of `generation_config.json`, if not the family's own."""
    missing_rows: int = 0
    """By how much the embedding is smaller than the vocabulary."""

    @property
    def described(self) -> Family:
        """The family after the changes."""
        family = ALL[self.family]
        return replace(
            family,
            leading=tuple(t for t in family.leading if t not in self.without),
            trailing=tuple(t for t in family.trailing if t not in self.without),
            chat_template=family.chat_template
            if self.chat_template is None
            else self.chat_template,
        )


def write_base(base: Base, corpus: Iterable[Path], folder: Path) -> Path:
    """Write what a preprocess and a judge read of a base model."""
    family = base.described
    folder.mkdir(parents=True)
    ids = write_tokenizer(family, list(corpus), folder)
    if not family.chat_template:
        (folder / "chat_template.jinja").unlink()
    config = shrink(
        {
            "architectures": [family.architecture],
            "model_type": family.model_type,
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            **family.config,
        },
        len(ids) - base.missing_rows,
    )
    generation = token_settings(family, ids)
    _write(folder / "config.json", config | generation)
    stops = family.stops if base.stops is None else base.stops
    generation["eos_token_id"] = [ids[token] for token in stops if token in ids]
    _write(folder / "generation_config.json", generation)
    return folder


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
