"""Data sources as axolotl's `datasets` entries."""

from pathlib import PurePath
from typing import Any

from orchestrator.backends.base import merged
from orchestrator.prompts import alpaca_prompt
from orchestrator.recipe.models import ColumnRole, Recipe, Source, column
from orchestrator.recipe.sections.data import Role
from orchestrator.recipe.sources import is_snapshot
from orchestrator.templates import ALPACA

DS_TYPES = {
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".txt": "text",
}

CHATS = ("messages", "sharegpt", "preference")
"""Formats that go through a chat template."""

COLUMN_KEYS: tuple[tuple[ColumnRole, str], ...] = (
    ("system", "field_system"),
    ("tools", "field_tools"),
    ("thinking", "field_thinking"),
    ("train", "message_field_training"),
    ("train_detail", "message_field_training_detail"),
)
CUSTOM_KEYS: tuple[tuple[ColumnRole, str], ...] = (
    ("messages", "field_messages"),
    ("chosen", "field_chosen"),
    ("rejected", "field_rejected"),
    ("text", "field"),
    *COLUMN_KEYS,
)
OPTION_KEYS = {
    "files": "data_files",
    "chat_template": "chat_template",
    "train_roles": "roles_to_train",
    "train_eos": "train_on_eos",
    "train_eot": "train_on_eot",
    "drop_system": "drop_system_message",
    "split_thinking": "split_thinking",
    "thinking_key": "template_thinking_key",
    "shards": "shards",
    "trust_remote_code": "trust_remote_code",
    "skip": "skip",
}
"""Options of a source that are one key of an entry."""


def streamed(recipe: Recipe) -> bool:
    """Whether the data is axolotl's `pretraining_dataset`, which is read while training."""
    return recipe.training.stage == "pretrain" and bool(recipe.data.streaming)


def dataset(recipe: Recipe, source: Source, path: str) -> dict[str, Any]:
    """One entry; `path` is where the data is on the target."""
    entry: dict[str, Any] = {"path": path}
    ds_type = source.file_type or DS_TYPES.get(PurePath(path).suffix)
    if ds_type:
        entry["ds_type"] = ds_type
    if source.subset:
        entry["name"] = source.subset
    if source.revision:
        entry["revision"] = source.revision
    split = "train" if PurePath(path).suffix in DS_TYPES else source.split
    samples = source.samples or recipe.data.samples
    entry["split"] = f"{split}[:{samples}]" if samples else split
    entry |= _format(recipe, source)
    names = source.files
    if names and is_snapshot(path):  # there axolotl takes file names as they are, from any folder
        names = (names,) if isinstance(names, str) else names
        source = source.model_copy(update={"files": tuple(f"{path}/{name}" for name in names)})
        entry.setdefault("ds_type", DS_TYPES.get(PurePath(names[0]).suffix, "json"))
    for option, key in OPTION_KEYS.items():
        value = getattr(source, option)
        if value is None or (option == "chat_template" and source.format not in CHATS):
            continue
        entry[key] = list(value) if isinstance(value, tuple) else value
    return merged(entry, source.native.axolotl)


def _format(recipe: Recipe, source: Source) -> dict[str, Any]:
    match source.format:
        case "alpaca":
            return {"type": _alpaca(recipe, source)}
        case "text" if streamed(recipe):
            return {"type": "pretrain", "text_column": column(source, "text")}
        case "text":
            return {"type": "completion", "field": column(source, "text")}
        case "messages" | "sharegpt":
            return _messages(recipe, source)
        case "preference":
            return {
                "type": "chat_template.default",
                "field_messages": column(source, "messages"),
                "field_chosen": column(source, "chosen"),
                "field_rejected": column(source, "rejected"),
            }
        case "kto":
            return {
                "type": {
                    "field_prompt": column(source, "prompt"),
                    "field_completion": column(source, "completion"),
                    "field_label": column(source, "label"),
                    "prompt_format": "{prompt}",
                    "completion_format": "{completion}",
                }
            }
        case "pieces":
            return {"type": "input_output"}
        case "custom" | "registered":
            entry: dict[str, Any] = {"type": source.handler} if source.handler else {}
            entry |= _columns(source, CUSTOM_KEYS) | _properties(source)
            return entry


def _columns(source: Source, keys: tuple[tuple[ColumnRole, str], ...]) -> dict[str, Any]:
    return {key: name for role, key in keys if (name := column(source, role))}


def _properties(source: Source) -> dict[str, Any]:
    names = {role: column(source, role) for role in PROPERTIES if column(source, role)}
    return {"message_property_mappings": names} if names else {}


PROPERTIES: tuple[ColumnRole, ...] = ("role", "content")


def _messages(recipe: Recipe, source: Source) -> dict[str, Any]:
    last = recipe.data.train_on == "last_assistant"
    entry: dict[str, Any] = {
        "type": "chat_template",
        "field_messages": column(source, "messages"),
        **_properties(source),
        "roles_to_train": ["assistant"],
        "train_on_eos": "last" if last else "turn",
        **_columns(source, COLUMN_KEYS),
    }
    roles = {
        role: [names] if isinstance(names, str) else list(names)
        for role, names in source.roles.items()
    }
    if source.format == "sharegpt" and not roles and column(source, "tools"):
        # axolotl knows human and gpt by itself, but not the answers of tools
        roles = {
            "user": ["human"],
            "assistant": ["gpt"],
            "system": ["system"],
            "tool": ["observation", "tool"],
        }
    if roles:
        for role in ROLES:
            roles.setdefault(role, [role])
        entry["roles"] = roles
    return entry


ROLES: tuple[Role, ...] = ("user", "assistant", "system", "tool")


def _alpaca(recipe: Recipe, source: Source) -> str | dict[str, str]:
    """`alpaca` where the handler of that name fits, else the same prompt spelled out."""
    plain = not source.columns and recipe.data.default_system is None and not source.prompt
    if plain and (source.chat_template or recipe.data.chat_template) == ALPACA:
        return "alpaca"
    entry: dict[str, str | None] = {
        "field_instruction": column(source, "instruction") or "",
        "field_input": column(source, "input") or "",
        "field_output": column(source, "output") or "",
    }
    if source.prompt:
        entry |= {
            "system_prompt": source.prompt.system,
            "system_format": source.prompt.system_text,
            "format": source.prompt.text,
            "no_input_format": source.prompt.text_without_input,
        }
    else:
        prompt = alpaca_prompt(recipe, has_system=bool(column(source, "system")))
        entry |= {
            "system_prompt": prompt.system,
            "system_format": prompt.system_text,
            "format": prompt.text,
            "no_input_format": prompt.text_without_input,
        }
    entry["field_system"] = column(source, "system")
    return {key: value for key, value in entry.items() if value is not None}
