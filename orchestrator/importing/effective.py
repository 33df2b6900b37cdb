"""What a configuration comes to: without what equals the backend's own default.

Two configurations train the same if this is equal for both. The defaults are the pinned releases'
own (`keys.json`) and those that they work out from other keys.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.backends.axolotl.config import CUT_CROSS_ENTROPY_PLUGIN
from orchestrator.backends.axolotl.data import DS_TYPES
from orchestrator.backends.fields import COMMA
from orchestrator.backends.keys import load_keys

AXOLOTL: dict[str, Any] = {
    "bf16": "auto", "tf32": "auto", "fp16": False, "bfloat16": False, "float16": False,
    "sample_packing": False, "trust_remote_code": False, "max_grad_norm": 1.0, "seed": 42,
    "save_total_limit": 4, "excess_length_strategy": "drop", "dpo_loss_type": ["sigmoid"],
    "chat_template": "tokenizer_default", "lora_target_linear": False, "peft_use_dora": False,
    "peft_use_rslora": False, "rl_beta": 0.1, "gptq": False, "streaming": False,
    "group_by_length": False, "reward_model": False, "process_reward_model": False,
}  # fmt: skip
"""Defaults that the schema leaves open (schema-map 2a), or where false is the same as nothing."""

ENTRY: dict[str, Any] = {
    "split": "train", "trust_remote_code": False, "roles_to_train": ["assistant"],
    "train_on_eos": "turn", "field_messages": "messages",
    "message_property_mappings": {"role": "role", "content": "content"},
}  # fmt: skip
PREFERENCE_ENTRY = {"field_chosen": "chosen", "field_rejected": "rejected"}
PRETRAINING_ENTRY = {"type": "pretrain", "text_column": "text"}


def effective(config: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """The configuration without nulls, empty sections and defaults."""
    config = without_null(config)
    if backend == "axolotl":
        return _axolotl(config)
    return _llamafactory(config)


def without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings without keys that are null or empty sections."""
    plain = {key: _plain(inner) for key, inner in value.items()}
    empty: tuple[Any, ...] = ({}, [])
    return {key: inner for key, inner in plain.items() if inner is not None and inner not in empty}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_null(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Equal, and not only because true counts as 1."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _dropped(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if key not in defaults or not same(value, defaults[key])
    }


def _schema_defaults(backend: str) -> dict[str, Any]:
    keys = load_keys(backend)["keys"]
    return {key: spec["default"] for key, spec in keys.items() if spec.get("default") is not None}


def _axolotl(config: dict[str, Any]) -> dict[str, Any]:
    aliases = {"revision_of_model": "model_revision"}
    config = {aliases.get(key, key): value for key, value in config.items()}
    defaults = _schema_defaults("axolotl") | AXOLOTL
    defaults["eval_batch_size"] = config.get("micro_batch_size", 1)
    if config.get("sample_packing"):
        defaults |= {"pad_to_sequence_len": True, "eval_sample_packing": True}
    else:
        defaults["eval_sample_packing"] = False
    if "wandb_project" in config:
        defaults["use_wandb"] = True
    plugins = config.get("plugins")
    if not isinstance(plugins, list) or CUT_CROSS_ENTROPY_PLUGIN not in plugins:
        defaults.pop("cut_cross_entropy", None)
    defaults["save_strategy"] = "steps" if "save_steps" in config else "epoch"
    defaults["eval_strategy"] = "steps" if "eval_steps" in config else "no"
    result = _dropped(config, defaults)
    for name in ("datasets", "test_datasets", "pretraining_dataset"):
        if isinstance(result.get(name), list):
            result[name] = [_entry(entry, name) for entry in result[name]]
    return result


def _entry(entry: Any, name: str) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    defaults = dict(ENTRY)
    kind = entry.get("type")
    suffix = PurePath(str(entry.get("path", ""))).suffix
    if suffix in DS_TYPES:
        defaults["ds_type"] = DS_TYPES[suffix]
    if kind == "completion":
        defaults["field"] = "text"
    if isinstance(kind, str) and kind.startswith("chat_template."):
        defaults |= PREFERENCE_ENTRY
    if name == "pretraining_dataset":
        defaults |= PRETRAINING_ENTRY
    return _dropped(entry, defaults)


def _llamafactory(config: dict[str, Any]) -> dict[str, Any]:
    config = {key: _list(key, value) for key, value in config.items()}
    defaults = {
        key: _list(key, value) for key, value in _schema_defaults("llamafactory").items()
    } | {"packing": config.get("stage") == "pt", "hub_private_repo": False}
    rank = config.get("lora_rank", 8)
    defaults["lora_alpha"] = 2 * rank if isinstance(rank, int) else None
    return _dropped(config, defaults)


def _list(key: str, value: Any) -> Any:
    """Lists in their one form; LLaMA-Factory takes several."""
    if key in COMMA or key == "report_to":
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            return [str(value)]
        return [item.strip() if isinstance(item, str) else str(item) for item in items]
    if key == "fsdp":
        return value.split() if isinstance(value, str) else value
    if key == "include_num_input_tokens_seen" and isinstance(value, bool):
        return "all" if value else "no"
    return value
