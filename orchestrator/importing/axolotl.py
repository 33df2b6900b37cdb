"""An axolotl configuration as a draft of a recipe.

Only what rendering would write back is mapped; what is overseen here shows as a difference and
becomes native, so nothing gets lost.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.backends.axolotl.config import CUT_CROSS_ENTROPY_PLUGIN, LIGER_PARTS, LIGER_PLUGIN
from orchestrator.backends.axolotl.data import COLUMN_KEYS, CUSTOM_KEYS, DS_TYPES, OPTION_KEYS
from orchestrator.importing.draft import Draft
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

Config = Mapping[str, Any]
FIRST_ROWS = re.compile(r"(\w+)\[:(\d+)\]")
DIRECT = {
    "base_model": "model.base",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "tf32": "model.tf32",
    "sequence_len": "data.sequence_length",
    "sample_packing": "data.packing",
    "pad_to_sequence_len": "data.pad",
    "shuffle_merged_datasets": "data.shuffle",
    "default_system_message": "data.default_system",
    "dataset_num_proc": "data.workers",
    "val_set_size": "data.validation",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_modules_to_save": "adapter.modules_to_save",
    "peft_use_dora": "adapter.dora",
    "peft_use_rslora": "adapter.rslora",
    "loraplus_lr_ratio": "adapter.loraplus_ratio",
    "peft_init_lora_weights": "adapter.init",
    "micro_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "eval_batch_size": "training.eval_batch_size",
    "learning_rate": "training.learning_rate",
    "lr_scheduler": "training.scheduler",
    "warmup_ratio": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "group_by_length": "training.group_by_length",
    "neftune_noise_alpha": "training.neftune_alpha",
    "seed": "training.seed",
    "early_stopping_patience": "training.early_stopping",
    "rl_beta": "training.preference.beta",
    "simpo_gamma": "training.preference.simpo_gamma",
    "wandb_project": "tracking.project",
    "wandb_entity": "tracking.entity",
    "wandb_name": "tracking.run_name",
}
"""Keys that a field takes over as they are."""


def draft(config: Config, draft_: Draft) -> None:
    """Fill a draft from a screened and modernised configuration."""
    draft_.pairs(config, "axolotl")
    for key, field in DIRECT.items():
        draft_.put(field, config.get(key))
    _model(config, draft_)
    _adapter(config, draft_)
    _data(config, draft_)
    _training(config, draft_)
    _running(config, draft_)


def _model(config: Config, draft_: Draft) -> None:
    bf16, fp16 = config.get("bf16", "auto"), config.get("fp16")
    if fp16 is True:
        draft_.put("model.dtype", "float16")
    elif bf16 is True:
        draft_.put("model.dtype", "bfloat16")
    elif bf16 is False:
        draft_.put("model.dtype", "float32")
    else:
        draft_.put("model.dtype", "auto")
    draft_.put("model.attention", config.get("attn_implementation", "auto"))
    _plugins(config, draft_)


def _plugins(config: Config, draft_: Draft) -> None:
    """Two plugins are fields of their own, in that order behind the others."""
    listed = config.get("plugins")
    plugins = [str(name) for name in listed] if isinstance(listed, list) else []
    own = []
    parts = [part for part, key in LIGER_PARTS.items() if config.get(key) is True]
    if LIGER_PLUGIN in plugins and parts:
        own.append(LIGER_PLUGIN)
        draft_.put("kernels.liger", parts)
    if CUT_CROSS_ENTROPY_PLUGIN in plugins and config.get("cut_cross_entropy") is not False:
        own.append(CUT_CROSS_ENTROPY_PLUGIN)
        draft_.put("kernels.cut_cross_entropy", True)
    others = [name for name in plugins if name not in own]
    named = others if [*others, *own] == plugins else plugins
    draft_.put("kernels.plugins", named or None)


def _adapter(config: Config, draft_: Draft) -> None:
    adapter = config.get("adapter")
    if adapter not in ("lora", "qlora"):
        for field in ("rank", "alpha", "dropout", "modules_to_save", "dora", "rslora", "init"):
            draft_.document.get("adapter", {}).pop(field, None)
        return
    draft_.put("adapter.type", "lora")
    if adapter == "qlora" and config.get("load_in_4bit") is True:
        draft_.put("model.quantization", "nf4")
    elif config.get("load_in_8bit") is True:
        draft_.put("model.quantization", "int8")
    targets = config.get("lora_target_modules")
    if targets:
        draft_.put("adapter.targets", targets)
        draft_.put("adapter.linear_too", config.get("lora_target_linear") or None)
    elif config.get("lora_target_linear") is True:
        draft_.put("adapter.targets", "all-linear")
    else:
        draft_.leave("adapter.targets")


def _data(config: Config, draft_: Draft) -> None:
    streams = isinstance(config.get("pretraining_dataset"), list)
    entries = _entries(config, "pretraining_dataset" if streams else "datasets")
    template = _template(config, draft_, entries)
    sources = [_source(entry, config, template, streams) for entry in entries]
    if sources:
        draft_.put("data.sources", sources)
    tests = _entries(config, "test_datasets")
    if tests:
        found = [_source(entry, config, template, False) for entry in tests]
        draft_.put("data.validation_sources", found)
        draft_.document["data"].pop("validation", None)
    if streams:
        draft_.put("data.streaming", True)
    if config.get("sample_packing") is True:
        packed = config.get("eval_sample_packing")
        fields_ = draft_.document.setdefault("data", {})
        fields_["packing_evaluation"] = packed if isinstance(packed, bool) else None
    strategies = {"truncate": "truncate", "raise": "error", "drop": "drop"}
    draft_.put("data.overlong", strategies.get(str(config.get("excess_length_strategy"))))
    if config.get("train_on_inputs") is True:
        draft_.put("data.train_on", "all")
    if "sequence_len" not in config:
        draft_.put("data.sequence_length", 512)
    folder = config.get("dataset_prepared_path")
    draft_.put("data.prepared", folder) if folder else draft_.leave("data.prepared")


def _template(config: Config, draft_: Draft, entries: list[Any]) -> str:
    """The neutral name of the template; instruction rows alone have the Alpaca prompt."""
    name = config.get("chat_template")
    file = config.get("chat_template_jinja")
    if name == "jinja" and isinstance(file, str) and file.endswith(".jinja"):
        template = file
    elif name in (None, "tokenizer_default"):
        only = bool(entries) and all(entry.get("type") == "alpaca" for entry in entries)
        template = ALPACA if only and name is None else TOKENIZER
    else:
        known = (key for key, value in TEMPLATES.items() if value.axolotl == name)
        template = next(known, str(name))
    draft_.put("data.chat_template", template)
    stop = TEMPLATES[template].stop if template in TEMPLATES else ""
    if config.get("eot_tokens"):
        draft_.put("data.stop_tokens", config["eot_tokens"])
    elif stop:
        draft_.leave("data.stop_tokens")
    return template


def _source(entry: Config, config: Config, template: str, streams: bool) -> dict[str, Any]:
    source: dict[str, Any] = {"path": str(entry.get("path"))}
    source |= _format(entry, config, template, streams)
    for key, field in (("name", "subset"), ("revision", "revision")):
        if entry.get(key) is not None:
            source[field] = entry[key]
    split = entry.get("split")
    if isinstance(split, str):
        first = FIRST_ROWS.fullmatch(split)
        if first and int(first[2]):
            source["samples"] = int(first[2])
            split = first[1]
        if split != "train":
            source["split"] = split
    kind = entry.get("ds_type")
    if kind and kind != DS_TYPES.get(PurePath(source["path"]).suffix):
        source["file_type"] = kind
    for option, key in OPTION_KEYS.items():
        if option == "train_roles" and entry.get(key) == ["assistant"]:
            continue
        if entry.get(key) is not None and not (option == "train_eos" and entry[key] == "turn"):
            source.setdefault(option, entry[key])
    return source


def _format(entry: Config, config: Config, template: str, streams: bool) -> dict[str, Any]:
    kind, rl = entry.get("type"), config.get("rl")
    reward = config.get("reward_model") or config.get("process_reward_model")
    if streams and kind in (None, "pretrain"):
        return {"format": "text", **_columns({"text": entry.get("text_column")}, {"text": "text"})}
    if isinstance(kind, Mapping):
        return _spelled_out(kind) if not rl else {"format": "custom"}
    if kind == "alpaca" and not rl:
        own = {} if template == ALPACA else {"chat_template": ALPACA}
        return {"format": "alpaca", **own}
    if kind == "completion" and not rl:
        return {"format": "text", **_columns({"text": entry.get("field")}, {"text": "text"})}
    if kind == "input_output" and not rl:
        return {"format": "pieces"}
    if kind == "chat_template" and not rl and not reward:
        return _chat(entry)
    if kind == "chat_template.default" and rl == "dpo":
        named = {role: entry.get(f"field_{role}") for role in ("messages", "chosen", "rejected")}
        return {"format": "preference", **_columns(named, {name: name for name in named})}
    columns: dict[str, Any] = {role: entry[key] for role, key in CUSTOM_KEYS if entry.get(key)}
    columns |= _properties(entry)
    result: dict[str, Any] = {"format": "custom"}
    if kind:
        result["handler"] = kind
    return result | ({"columns": columns} if columns else {})


def _properties(entry: Config) -> dict[str, Any]:
    names = _options(entry.get("message_property_mappings"))
    return {role: names[role] for role in ("role", "content") if names.get(role)}


def _chat(entry: Config) -> dict[str, Any]:
    names = {"messages": entry.get("field_messages"), **_properties(entry)}
    shares = names.get("role") == "from" and names.get("content") == "value"
    usual = {"messages": "messages", "role": "role", "content": "content"}
    if shares:
        usual = {"messages": "conversations", "role": "from", "content": "value"}
        names["messages"] = names["messages"] or "messages"
    names |= {role: entry.get(key) for role, key in COLUMN_KEYS}
    result = {"format": "sharegpt" if shares else "messages", **_columns(names, usual)}
    roles = entry.get("roles")
    if isinstance(roles, Mapping):
        known = ("user", "assistant", "system", "tool")
        found = {role: roles[role] for role in known if roles.get(role)}
        if found:
            result["roles"] = found
    return result


def _spelled_out(kind: Config) -> dict[str, Any]:
    names = {role: kind.get(f"field_{role}") for role in ("instruction", "input", "output")}
    columns = _columns({**names, "system": kind.get("field_system")}, {n: n for n in names})
    prompt = {
        "text": kind.get("format"),
        "text_without_input": kind.get("no_input_format"),
        "system": kind.get("system_prompt"),
        "system_text": kind.get("system_format"),
    }
    prompt = {key: value for key, value in prompt.items() if value is not None}
    return {"format": "alpaca", **columns, "prompt": prompt}


def _columns(names: Config, usual: Config) -> dict[str, Any]:
    """Columns whose names are not the usual ones."""
    columns = {role: name for role, name in names.items() if name and name != usual.get(role)}
    return {"columns": columns} if columns else {}


def _training(config: Config, draft_: Draft) -> None:
    draft_.put("training.stage", _stage(config))
    losses = config.get("dpo_loss_type")
    if isinstance(losses, list) and len(losses) == 1:
        draft_.put("training.preference.loss", losses[0])
    if config.get("rl") == "simpo":
        draft_.put("training.preference.loss", "simpo")
    if config.get("max_steps"):
        draft_.put("training.steps", config["max_steps"])
    else:
        draft_.put("training.epochs", config.get("num_epochs", 1.0))
    if config.get("warmup_steps") is not None:
        draft_.put("training.warmup_steps", config["warmup_steps"])
    elif not config.get("warmup_ratio"):
        draft_.leave("training.warmup_steps")
    if config.get("early_stopping_patience") and not config.get("load_best_model_at_end"):
        draft_.put("training.keep_best", False)
    draft_.put("training.optimizer", config.get("optimizer", "adamw_torch_fused"))
    checkpoints = config.get("gradient_checkpointing", False)
    draft_.put("training.gradient_checkpointing", checkpoints)
    if checkpoints:
        reentrant = _options(config.get("gradient_checkpointing_kwargs")).get("use_reentrant")
        draft_.document["training"]["reentrant"] = reentrant
    steps = config.get("logging_steps")
    draft_.put("training.log_every", steps) if steps else draft_.leave("training.log_every")
    draft_.document["training"]["save"] = _cadence(config, "save", "epoch")
    draft_.put("training.keep_checkpoints", config.get("save_total_limit", 4))
    held_out = config.get("val_set_size") or config.get("test_datasets")
    evaluate = _cadence(config, "eval", "never")
    if held_out or evaluate == "never":
        draft_.put("training.evaluate", evaluate)
    else:
        draft_.leave("training.evaluate")


def _stage(config: Config) -> str:
    rl = config.get("rl")
    if config.get("reward_model"):
        return "reward"
    if config.get("process_reward_model"):
        return "process_reward"
    if rl in ("simpo", "ipo"):
        return "dpo"
    if rl:
        return str(rl)
    streams = _entries(config, "pretraining_dataset")
    kinds = [entry.get("type") for entry in streams or _entries(config, "datasets")]
    usual = (None, "pretrain") if streams else ("completion",)
    return "pretrain" if kinds and all(kind in usual for kind in kinds) else "sft"


def _entries(config: Config, name: str) -> list[Config]:
    found = config.get(name)
    return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []


def _options(value: Any) -> Config:
    """A section as one, whatever else stands there."""
    return value if isinstance(value, Mapping) else {}


def _cadence(config: Config, what: str, default: str) -> Any:
    strategy, steps = config.get(f"{what}_strategy"), config.get(f"{what}_steps")
    times = config.get(f"{what}s_per_epoch")
    if steps:
        return steps
    if isinstance(times, int) and times > 0:
        return f"{times}/epoch"
    named = {"no": "never", "epoch": "epoch", "best": "best", "None": default}
    return named.get(str(strategy))


def _running(config: Config, draft_: Draft) -> None:
    if isinstance(config.get("deepspeed"), str):
        draft_.put("distributed.strategy", "deepspeed")
        draft_.put("distributed.deepspeed_file", config["deepspeed"])
    elif config.get("fsdp_config") or config.get("fsdp"):
        draft_.put("distributed.strategy", "fsdp")
    elif config.get("ddp") is True:
        draft_.put("distributed.strategy", "ddp")
    for tracker in ("mlflow", "comet", "trackio", "tensorboard"):
        if config.get(f"use_{tracker}") is True:
            draft_.put("tracking.type", tracker)
    if config.get("wandb_project") or config.get("use_wandb") is True:
        draft_.put("tracking.type", "wandb")
    folder = config.get("output_dir", "./model-out")
    draft_.put("output.training_directory", folder)
