"""A recipe from a few answers: a base, data and a method, everything else as is usual."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import yaml_out
from orchestrator.data_check.guess import Guess, first_rows, guess
from orchestrator.errors import UsageError
from orchestrator.files import read_json
from orchestrator.recipe.load import model_at
from orchestrator.recipe.sources import local_path, looks_local
from orchestrator.recipe.yaml_source import Path_
from orchestrator.smoke import FAMILIES
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

METHODS = {
    "lora": "LoRA: small matrices beside the frozen base",
    "qlora": "QLoRA: a LoRA on a base in 4 bits, the least memory",
    "full": "full fine-tune of every weight",
    "dpo": "DPO on pairs of answers, with a LoRA",
}
RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5, "dpo": 5e-6}
CONVERSATIONS = ("messages", "sharegpt", "preference")
FORMATS = ("alpaca", "messages", "sharegpt", "text", "preference", "kto")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a new recipe is made from; an empty format is looked up in the data.

    An empty backend is axolotl where it takes the format.
    """

    name: str
    base: str
    data: str
    format: str = ""
    method: str = "lora"
    backend: str = ""


def compose(answers: Answers, beside: Path) -> str:
    """The text of the recipe, every line with what it means.

    Raises:
        UsageError: the method or the format is unknown, or the data does not tell its format.
    """
    if answers.method not in METHODS:
        raise UsageError(f"unknown method {answers.method!r}", hint=f"one of {', '.join(METHODS)}")
    if answers.format and answers.format not in FORMATS:
        raise UsageError(f"unknown format {answers.format!r}", hint=f"one of {', '.join(FORMATS)}")
    path = local_path(answers.data, beside)
    rows = first_rows(path) if path else []
    looks = guess(rows)
    if not answers.format and looks is None:
        where = "a hub data set does not say" if path is None else f"{path} does not show"
        raise UsageError(
            f"{where} what a row looks like",
            hint=f"--format, one of {', '.join(FORMATS)}",
        )
    if looks is None or (answers.format and answers.format != looks.format):
        looks = Guess(answers.format)
    if not answers.backend:
        backend = "llamafactory" if looks.format == "kto" else "axolotl"
        answers = replace(answers, backend=backend)
    head = [
        f"# {METHODS[answers.method]}.",
        f"# Check:  ft recipe validate {answers.name}",
        f"# Try it: ft recipe run {answers.name} --smoke",
        f"# Run:    ft recipe run {answers.name}",
    ]
    body = _body(answers, looks, beside, len(rows))
    return "\n".join([*head, *commented(body), ""])


def _body(answers: Answers, looks: Guess, beside: Path, rows: int) -> dict[str, Any]:
    method = answers.method
    source: dict[str, Any] = {"path": _data_path(answers.data, beside), "format": looks.format}
    if looks.columns:
        source["columns"] = looks.columns
    if looks.roles:
        source["roles"] = looks.roles
    evaluated = method != "dpo" and (rows == 0 or rows >= 50)
    data: dict[str, Any] = {"sources": [source]}
    if evaluated:
        data["validation"] = 0.02
    data |= {
        "sequence_length": _sequence_length(answers.base, beside),
        "chat_template": _template(answers, looks.format),
    }
    model: dict[str, Any] = {"base": answers.base}
    if method == "qlora":
        model["quantization"] = "nf4"
    body: dict[str, Any] = {
        "name": answers.name,
        "description": f"{answers.base.rsplit('/', 1)[-1]}, {METHODS[method].split(':')[0]}",
        "backend": answers.backend,
        "model": model,
        "data": data,
    }
    if method != "full":
        body["adapter"] = {"type": "lora", "rank": 16, "alpha": 32}
    stage = {"preference": "dpo", "kto": "kto"}.get(looks.format, "sft")
    body["training"] = {
        "stage": "dpo" if method == "dpo" else stage,
        "epochs": 1,
        "micro_batch_size": 1,
        "gradient_accumulation": 8 if not rows or rows >= LARGE else 1,
        "learning_rate": RATES["dpo"] if stage != "sft" else RATES[method],
        "warmup_ratio": 0.03,
        "save": "epoch",
        **({"evaluate": "epoch"} if evaluated else {}),
    }
    return body | {"output": {"merge": method != "full", "export": True}}


LARGE = 50


def _data_path(text: str, beside: Path) -> str:
    """As it was given if it is found from the recipe's folder or a hub id, else in full."""
    if (beside / text).exists() or not looks_local(text):
        return text
    path = local_path(text, beside)
    return str(path) if path else text


def _sequence_length(base: str, beside: Path) -> int:
    path = local_path(base, beside)
    config = read_json(path / "config.json") if path else None
    longest = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return min(2048, longest) if isinstance(longest, int) and longest >= 16 else 2048


def _template(answers: Answers, format: str) -> str:
    """The model's own template by the family in its name; the closest match first."""
    if format == "alpaca":
        return ALPACA
    if format not in CONVERSATIONS:
        return TOKENIZER
    base = answers.base.rstrip("/").rsplit("/", 1)[-1].lower()
    family = next((family for pattern, family in FAMILIES if re.search(pattern, base)), None)
    own = [
        (len(template.families), name)
        for name, template in TEMPLATES.items()
        if family in template.families and getattr(template, answers.backend)
    ]
    return min(own)[1] if own else TOKENIZER


def commented(body: Mapping[str, Any]) -> Iterator[str]:
    """Lines of YAML, each with its field's description; an empty line before a section."""
    for key, value in body.items():
        if isinstance(value, dict):
            yield ""
        yield from _lines({key: value}, (), "")


def _lines(value: Mapping[str, Any], path: Path_, pad: str) -> Iterator[str]:
    for key, inner in value.items():
        here = (*path, key)
        if isinstance(inner, dict):
            yield _with_comment(f"{pad}{key}:", here if path else ())
            yield from _lines(inner, here, f"{pad}  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield _with_comment(f"{pad}{key}:", here)
            for item in inner:
                first, *others = _lines(item, (*here, 0), f"{pad}    ")
                yield f"{pad}  - {first.lstrip()}"
                yield from others
        else:
            first, *others = yaml_out.dump({key: inner}).rstrip("\n").split("\n")
            yield f"{pad}{first}" if others else _with_comment(f"{pad}{first}", here)
            yield from (f"{pad}{line}" for line in others)


def _with_comment(line: str, path: Path_) -> str:
    model = model_at(path[:-1]) if path else None
    field = model.model_fields.get(str(path[-1])) if model else None
    if field is None or not field.description:
        return line
    return f"{line:<38}  # {field.description}"
