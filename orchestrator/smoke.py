"""`--smoke`: the same recipe on a tiny twin.

The twin is a random model of two layers of the recipe's own architecture with a tokenizer that has
the family's special tokens and template, and a small data set of the recipe's own format and
column names that has something learnable in it. Everything that a CPU can do stays as the recipe
has it; what had to change is listed, and printed.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from orchestrator.errors import UsageError
from orchestrator.recipe.models import ColumnRole, DataFormat, Family, Recipe, Source, column
from orchestrator.recipe.sections.data import SourceNative

FAMILIES: tuple[tuple[str, Family], ...] = (
    (r"mi[sx]tral|ministral|zephyr", "mistral"),
    (r"qwen-?3", "qwen3"),
    (r"qwen", "qwen2"),
    (r"gemma", "gemma"),
    (r"phi-?[34]", "phi3"),
    (r"llama-?2|vicuna", "llama2"),
    (r"llama|tulu|hermes", "llama3"),
)
"""What a base model's name says about its architecture family; the first match wins."""

MODEL_TYPES: dict[str, Family] = {
    "mistral": "mistral", "mixtral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3",
    "gemma": "gemma", "gemma2": "gemma", "gemma3_text": "gemma", "phi3": "phi3", "llama": "llama3",
}  # fmt: skip

STEPS = 30
SEQUENCE_LENGTH = 512
FILES: dict[DataFormat, str] = {
    "alpaca": "alpaca", "messages": "messages", "sharegpt": "messages", "text": "text",
    "preference": "preference", "kto": "kto",
}  # fmt: skip


class Smoke(NamedTuple):
    """The smoke form of a recipe, and what was changed for it, one line each."""

    recipe: Recipe
    changes: tuple[str, ...]


def family_of(recipe: Recipe, model_type: str = "") -> Family:
    """The architecture family: said by the recipe, its base's config, or its base's name.

    Raises:
        UsageError: none of them tells.
    """
    if recipe.model.family:
        return recipe.model.family
    if model_type in MODEL_TYPES and model_type != "llama":
        return MODEL_TYPES[model_type]
    name = recipe.model.base.rstrip("/").rsplit("/", 1)[-1].lower()
    for pattern, family in FAMILIES:
        if re.search(pattern, name):
            return family
    if model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type]
    known = sorted({family for _, family in FAMILIES})
    raise UsageError(
        f"cannot tell the architecture family of {recipe.model.base}, which --smoke needs",
        hint=f"--set model.family=..., one of {', '.join(known)}",
    )


def smoke_recipe(recipe: Recipe, family: Family) -> Smoke:
    """The recipe on its tiny twin of `family`."""
    for other in (*recipe.data.sources, *recipe.data.validation_sources):
        if other.format not in FILES:
            raise UsageError(
                f"--smoke has no data like {other.format} rows",
                hint=f"it has {', '.join(FILES)}",
            )
    changes = list(_changes(recipe))
    document = recipe.model_dump(mode="json")
    for field, value, _ in changes:
        section: Any = document
        *parents, last = field.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
    source = recipe.data.sources[0].model_copy(
        update={
            "subset": None,
            "split": "train",
            "revision": None,
            "samples": None,
            "files": None,
            "file_type": None,
            "shards": None,
            "skip": None,
            "trust_remote_code": None,
            "native": SourceNative(),
        }
    )
    document["data"]["sources"] = [source.model_dump(mode="json")]
    document["data"]["validation_sources"] = (
        document["data"]["sources"] if recipe.data.validation_sources else []
    )
    lines = [
        f"{field}: {_shown(_get(recipe, field))} -> {_shown(value)} ({why})"
        for field, value, why in changes
        if _get(recipe, field) != value
    ]
    lines.insert(0, f"model.base: {recipe.model.base} -> a random twin of the "
                    f"{family} family with 2 layers")  # fmt: skip
    lines.insert(1, "data.sources: -> data of the same format that ships with ft")
    return Smoke(Recipe.model_validate(document), tuple(lines))


LEFT_OUT = {
    "model.tokenizer": "the twin has its own",
    "model.config_from": "the twin has its own",
    "model.load_options": "the twin needs none",
    "kernels.liger": "CPU",
    "kernels.cut_cross_entropy": "CPU",
    "training.compile": "CPU",
    "data.samples": "small data",
    "data.push_to": "no network",
    "output.checkpoints_to_hub": "no network",
    "output.hub_push": "no network",
    "output.resume_from": "a run of its own",
    "output.auto_resume": "a run of its own",
}
"""Settings that have no meaning on a tiny twin, or reach out of the machine."""


def _changes(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    training, data = recipe.training, recipe.data
    yield "model.revision", None, "the twin has none"
    yield "model.trust_remote_code", False, "the twin needs no code"
    yield "model.dtype", "float32", "CPU"
    if recipe.model.attention not in ("eager", "sdpa"):
        yield "model.attention", "sdpa", "CPU"
    yield "data.sequence_length", min(data.sequence_length, SEQUENCE_LENGTH), "quick"
    if data.validation >= 1:
        yield "data.validation", min(data.validation, 16), "small data"
    yield "training.epochs", None, "a few dozen steps"
    yield "training.steps", STEPS, "a few dozen steps"
    yield (
        "training.micro_batch_size",
        min(training.micro_batch_size, 2 if data.packing else 4),
        ("quick"),
    )
    yield "training.gradient_accumulation", 1, "quick"
    yield "training.effective_batch", None, "quick"
    rate = 1e-2 if recipe.adapter.type == "lora" else 3e-3
    yield "training.learning_rate", rate, "a random model has far to go"
    if training.optimizer not in ("adamw_torch", "adafactor", "sgd"):
        yield "training.optimizer", "adamw_torch", "CPU"
    yield "training.warmup_ratio", min(training.warmup_ratio, 0.1), "few steps"
    yield "training.warmup_steps", min(training.warmup_steps or 0, 4), "few steps"
    yield "training.log_every", 1, "to show the loss"
    if training.save not in (None, "never"):
        yield "training.save", STEPS // 2, "few steps"
    if training.evaluate not in (None, "never"):
        yield "training.evaluate", STEPS // 2, "few steps"
    yield "distributed", {"strategy": "none"}, "one CPU process"
    yield "tracking", {"type": "none"}, "no network"
    yield "output.push_to_hub", None, "no network"
    for field, why in LEFT_OUT.items():
        if _get(recipe, field):
            yield field, None, why


def _get(recipe: Recipe, field: str) -> Any:
    value: Any = recipe
    for part in field.split("."):
        value = getattr(value, part)
    if field == "distributed":
        return {"strategy": value.strategy}
    return {"type": value.type} if field == "tracking" else value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(v) for v in value.values())
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def rows(format: DataFormat) -> list[dict[str, Any]]:
    """The shipped rows of a format, by the names that the format usually has."""
    name = FILES[format]
    text = (
        resources.files("orchestrator").joinpath("smoke_data", f"{name}.jsonl").read_text("utf-8")
    )
    return [json.loads(line) for line in text.splitlines()]


def data_for(source: Source) -> str:
    """The small data set as JSON lines, with the column and role names of `source`."""
    return "".join(
        json.dumps(_renamed(row, source), ensure_ascii=False) + "\n" for row in rows(source.format)
    )


def _renamed(row: dict[str, Any], source: Source) -> dict[str, Any]:
    match source.format:
        case "messages" | "sharegpt" | "preference":
            result: dict[str, Any] = {}
            for role in ("messages", "chosen", "rejected"):
                name = column(source, _as_role(role))
                if role in row and name:
                    value = row[role]
                    many = isinstance(value, list)
                    messages = [_message(m, source) for m in (value if many else [value])]
                    result[name] = messages if many else messages[0]
            return result
        case _:
            names = {role: column(source, _as_role(role)) for role in (*row, "system", "history")}
            empty: dict[str, Any] = {"system": "", "history": []}
            return {name: row.get(role, empty.get(role)) for role, name in names.items() if name}


def _as_role(name: str) -> ColumnRole:
    return name  # type: ignore[return-value]


def _message(message: dict[str, str], source: Source) -> dict[str, str]:
    names = {"user": "human", "assistant": "gpt"} if source.format == "sharegpt" else {}
    role = message["role"]
    given = source.roles.get(role, names.get(role, role))  # type: ignore[call-overload]
    role = given if isinstance(given, str) else given[0]
    return {
        column(source, "role") or "role": role,
        column(source, "content") or "content": message["content"],
    }


def twin_key(family: str, release: str, seed: int) -> str:
    """Name of the twin's folder: everything that decides what is in it."""
    corpus = "".join(
        json.dumps(rows(name)) for name in ("alpaca", "messages", "text", "preference", "kto")
    )
    text = f"{family}:{release}:{seed}:{corpus}:{_maker_source()}"
    return f"{family}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _maker_source() -> str:
    folder = resources.files("orchestrator").joinpath("probe", "ftprobe")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".py"))
    wanted = [name for name in files if name.startswith(("twin", "families"))]
    return "".join(folder.joinpath(name).read_text("utf-8") for name in wanted)
