"""Data sources as entries of LLaMA-Factory's `dataset_info.json`.

An entry lists every column and tag: what a block leaves out becomes None there instead of its
default, and a missing `query` drops the input column silently (llamafactory 0.9.5).
"""

from pathlib import PurePath
from typing import Any

from orchestrator.backends.base import merged
from orchestrator.recipe.models import ColumnRole, Recipe, Source, column
from orchestrator.recipe.sources import is_snapshot

FILE_SUFFIXES = {".jsonl", ".json", ".parquet", ".csv", ".arrow", ".txt"}


def entry(source: Source, path: str) -> dict[str, Any]:
    """One entry; `path` is where the data is on the target."""
    is_file = PurePath(path).is_absolute() or PurePath(path).suffix in FILE_SUFFIXES
    # `file_name` takes every file of a folder, whatever its split; a path serves as a hub id, too
    is_file = is_file and not is_snapshot(path)
    info: dict[str, Any] = {"file_name": path} if is_file else {"hf_hub_url": path}
    if source.subset:
        info["subset"] = source.subset
    split = "train" if is_file else source.split
    # a slice takes the first rows; `num_samples` would draw at random, some rows twice
    if source.samples:
        info["split"] = f"{split}[:{source.samples}]"
    elif not is_file:
        info["split"] = split
    if source.format in ("messages", "sharegpt", "preference"):
        info["formatting"] = "sharegpt"
        info["tags"] = _tags(source)
    if source.format == "preference":
        info["ranking"] = True
    columns = {**_columns(source), **_media(source)}
    info["columns"] = {key: value for key, value in columns.items() if value}
    return merged(info, source.native.llamafactory)


def registered(recipe: Recipe) -> bool:
    """Whether the sources are names in a `dataset_info.json` that is there already."""
    return any(source.format == "registered" for source in recipe.data.sources)


def _media(source: Source) -> dict[str, str | None]:
    """Columns that any format may have."""
    names: tuple[ColumnRole, ...] = ("tools", "images", "videos", "audios")
    return {name: column(source, name) for name in names}


def _columns(source: Source) -> dict[str, str | None]:
    match source.format:
        case "alpaca":
            return {
                "prompt": column(source, "instruction"),
                "query": column(source, "input"),
                "response": column(source, "output"),
                "system": column(source, "system"),
                "history": column(source, "history"),
            }
        case "text":
            return {"prompt": column(source, "text")}
        case "messages" | "sharegpt":
            return {"messages": column(source, "messages"), "system": column(source, "system")}
        case "preference":
            return {
                "messages": column(source, "messages"),
                "chosen": column(source, "chosen"),
                "rejected": column(source, "rejected"),
                "system": column(source, "system"),
            }
        case "kto":
            return {
                "prompt": column(source, "prompt"),
                "response": column(source, "completion"),
                "kto_tag": column(source, "label"),
            }
        case _:
            return {}


def _tags(source: Source) -> dict[str, str]:
    sharegpt = source.format == "sharegpt"
    names = {
        "user": "human" if sharegpt else "user",
        "assistant": "gpt" if sharegpt else "assistant",
        "system": "system",
        "tool": "observation" if sharegpt else "tool",
        "function": "function_call",
        **{role: _first(names) for role, names in source.roles.items()},
    }
    return {
        "role_tag": column(source, "role") or "role",
        "content_tag": column(source, "content") or "content",
        "user_tag": names["user"],
        "assistant_tag": names["assistant"],
        "system_tag": names["system"],
        "observation_tag": names["tool"],
        "function_tag": names["function"],
    }


def _first(names: str | tuple[str, ...]) -> str:
    """LLaMA-Factory knows one name per role."""
    return names if isinstance(names, str) else names[0]


def dataset_info(recipe: Recipe, train: list[str], validation: list[str]) -> dict[str, Any]:
    """The whole file. Sources are named `train_0`, `train_1`, ... and `validation_0`, ..."""
    data = recipe.data
    info = {
        f"train_{i}": entry(source, path)
        for i, (source, path) in enumerate(zip(data.sources, train, strict=True))
    }
    info |= {
        f"validation_{i}": entry(source, path)
        for i, (source, path) in enumerate(zip(data.validation_sources, validation, strict=True))
    }
    return info
