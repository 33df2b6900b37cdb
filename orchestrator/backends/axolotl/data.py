"""Data sources as axolotl's `datasets` entries."""

from pathlib import PurePath
from typing import Any

from orchestrator.recipe.models import Recipe, Source, column
from orchestrator.templates import ALPACA

DS_TYPES = {
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".txt": "text",
}

ALPACA_FORMAT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
ALPACA_FORMAT_NO_INPUT = "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def dataset(recipe: Recipe, source: Source, path: str) -> dict[str, Any]:
    """One entry; `path` is where the data is on the target."""
    entry: dict[str, Any] = {"path": path}
    ds_type = DS_TYPES.get(PurePath(path).suffix)
    if ds_type:
        entry["ds_type"] = ds_type
    if source.subset:
        entry["name"] = source.subset
    if source.revision:
        entry["revision"] = source.revision
    split = "train" if ds_type else source.split
    entry["split"] = f"{split}[:{source.samples}]" if source.samples else split
    entry |= _format(recipe, source)
    return entry


def _format(recipe: Recipe, source: Source) -> dict[str, Any]:
    data = recipe.data
    match source.format:
        case "alpaca":
            return {"type": _alpaca(recipe, source)}
        case "text":
            return {"type": "completion", "field": column(source, "text")}
        case "messages" | "sharegpt":
            entry: dict[str, Any] = {
                "type": "chat_template",
                "field_messages": column(source, "messages"),
                "message_property_mappings": {
                    "role": column(source, "role"),
                    "content": column(source, "content"),
                },
                "roles_to_train": ["assistant"],
                "train_on_eos": "last" if data.train_on == "last_assistant" else "turn",
            }
            if column(source, "system"):
                entry["field_system"] = column(source, "system")
            roles = {role: [name] for role, name in source.roles.items()}
            if source.format == "sharegpt" and not roles:
                roles = {
                    "user": ["human"],
                    "assistant": ["gpt"],
                    "system": ["system"],
                    "tool": ["observation", "tool"],
                }
            if roles:
                for role in ("user", "assistant", "system", "tool"):
                    roles.setdefault(role, [role])
                entry["roles"] = roles
            return entry
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


def _alpaca(recipe: Recipe, source: Source) -> str | dict[str, str]:
    """`alpaca` where the handler of that name fits, else the same prompt spelled out."""
    plain = not source.columns and recipe.data.default_system is None
    if plain and recipe.data.chat_template == ALPACA:
        return "alpaca"
    entry = {
        "field_instruction": column(source, "instruction") or "",
        "field_input": column(source, "input") or "",
        "field_output": column(source, "output") or "",
        "system_prompt": recipe.data.default_system or ALPACA_SYSTEM,
        "system_format": "{system}\n\n",
        "format": ALPACA_FORMAT,
        "no_input_format": ALPACA_FORMAT_NO_INPUT,
    }
    if column(source, "system"):
        entry["field_system"] = column(source, "system") or ""
    return entry
