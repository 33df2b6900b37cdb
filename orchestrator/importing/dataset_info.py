"""Entries of LLaMA-Factory's `dataset_info.json` as sources, and what two entries come to."""

from collections.abc import Mapping
from typing import Any

from orchestrator.recipe.models import COLUMNS, DataFormat

USUAL_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
"""llamafactory 0.9.5: what an entry without these tags has."""

OPENAI_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
ROLE_TAGS = {
    "user": "user_tag", "assistant": "assistant_tag", "system": "system_tag",
    "tool": "observation_tag", "function": "function_tag",
}  # fmt: skip
USUAL_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output",
                 "messages": "conversations"}  # fmt: skip
COLUMN_NAMES = {
    "prompt": "instruction", "query": "input", "response": "output", "system": "system",
    "history": "history", "messages": "messages", "chosen": "chosen", "rejected": "rejected",
    "tools": "tools", "images": "images", "videos": "videos", "audios": "audios",
    "kto_tag": "label",
}  # fmt: skip
"""LLaMA-Factory's name of a column -> the recipe's."""


def complete(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with everything that it leaves to its defaults."""
    result = {key: value for key, value in entry.items() if value is not None}
    sharegpt = result.get("formatting", "alpaca") in ("sharegpt", "openai")
    columns = result.pop("columns", None)
    if columns is None:
        columns = USUAL_COLUMNS
    own = ("prompt", "query", "response", "history") if sharegpt else ("messages",)
    result["columns"] = {
        key: name for key, name in columns.items() if name and not (key in own and not _kto(entry))
    }
    if sharegpt:
        result["tags"] = USUAL_TAGS | {k: v for k, v in (result.get("tags") or {}).items() if v}
    else:
        result.pop("tags", None)
    for key, default in (("formatting", "alpaca"), ("split", "train"), ("ranking", False)):
        if result.get(key) == default:
            result.pop(key)
    return result


def _kto(entry: Mapping[str, Any]) -> bool:
    return "kto_tag" in (entry.get("columns") or {})


def source_from(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A source that renders to this entry, its oddities left to the later comparison."""
    full = complete(entry)
    path = next(
        (full[key] for key in ("file_name", "hf_hub_url", "script_url", "ms_hub_url")
         if full.get(key)), "data")  # fmt: skip
    format_ = _format(full)
    columns = {
        COLUMN_NAMES[key]: name for key, name in full["columns"].items() if key in COLUMN_NAMES
    }
    if format_ == "text":
        columns = {"text": columns["instruction"]} if "instruction" in columns else {}
    source: dict[str, Any] = {"path": path, "format": format_}
    tags = full.get("tags")
    if tags:
        columns |= {"role": tags["role_tag"], "content": tags["content_tag"]}
        usual = USUAL_TAGS if format_ == "sharegpt" else OPENAI_TAGS
        roles = {role: tags[tag] for role, tag in ROLE_TAGS.items() if tags[tag] != usual[tag]}
        if roles:
            source["roles"] = roles
    known = COLUMNS[format_]
    columns = {r: n for r, n in columns.items() if r in known and known[r] != n}
    if columns:
        source["columns"] = columns
    for key, field in (("subset", "subset"), ("split", "split")):
        if full.get(key) is not None:
            source[field] = full[key]
    return source


def _format(full: Mapping[str, Any]) -> DataFormat:
    columns, tags = full["columns"], full.get("tags")
    if tags and full.get("ranking"):
        return "preference"
    if tags:
        return "sharegpt" if tags["role_tag"] == "from" else "messages"
    if set(columns) == {"prompt"}:
        return "text"
    return "alpaca"
