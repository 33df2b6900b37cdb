"""A LLaMA-Factory configuration as a draft of a recipe.

Only what rendering would write back is mapped; what is overseen here shows as a difference and
becomes native, so nothing gets lost.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.backends.llamafactory.config import ATTENTION, STAGES, SWITCHES
from orchestrator.importing.dataset_info import source_from
from orchestrator.importing.draft import Draft
from orchestrator.importing.effective import effective
from orchestrator.templates import TEMPLATES, TOKENIZER

Config = Mapping[str, Any]
DIRECT = {
    "model_name_or_path": "model.base",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "tf32": "model.tf32",
    "double_quantization": "model.double_quantization",
    "cutoff_len": "data.sequence_length",
    "default_system": "data.default_system",
    "preprocessing_num_workers": "data.workers",
    "val_size": "data.validation",
    "dataset_dir": "data.registry",
    "lora_rank": "adapter.rank",
    "lora_dropout": "adapter.dropout",
    "use_dora": "adapter.dora",
    "use_rslora": "adapter.rslora",
    "loraplus_lr_ratio": "adapter.loraplus_ratio",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "warmup_ratio": "training.warmup_ratio",
    "neftune_noise_alpha": "training.neftune_alpha",
    "seed": "training.seed",
    "early_stopping_steps": "training.early_stopping",
    "pref_beta": "training.preference.beta",
    "simpo_gamma": "training.preference.simpo_gamma",
    "run_name": "tracking.run_name",
    "plot_loss": "output.plot_loss",
    "use_reentrant_gc": "training.reentrant",
}
"""Keys that a field takes over as they are."""

DEFAULTED = {
    "learning_rate": ("training.learning_rate", 5e-5),
    "lr_scheduler_type": ("training.scheduler", "linear"),
    "per_device_train_batch_size": ("training.micro_batch_size", 8),
    "per_device_eval_batch_size": ("training.eval_batch_size", 8),
    "logging_steps": ("training.log_every", 500),
    "use_reentrant_gc": ("training.reentrant", True),
    "overwrite_output_dir": ("output.overwrite", False),
}
"""Keys whose default here is not the recipe's."""


def draft(config: Config, draft_: Draft, info: Mapping[str, Any] | None) -> None:
    """Fill a draft from a screened and modernised configuration."""
    draft_.pairs(config, "llamafactory")
    for key, field in DIRECT.items():
        draft_.put(field, config.get(key))
    for key, (field, default) in DEFAULTED.items():
        draft_.put(field, config.get(key, default))
    _model(config, draft_)
    _adapter(config, draft_)
    _data(config, draft_, info)
    _training(config, draft_)
    _running(config, draft_)


def _model(config: Config, draft_: Draft) -> None:
    dtype = "float16" if config.get("fp16") is True else "float32"
    draft_.put("model.dtype", "bfloat16" if config.get("bf16") is True else dtype)
    names = {native: neutral for neutral, native in ATTENTION.items()}
    draft_.put("model.attention", names.get(str(config.get("flash_attn")), "auto"))
    bits = config.get("quantization_bit")
    if bits in (4, 8):
        draft_.put("model.quantization", "nf4" if bits == 4 else "int8")
    if config.get("enable_liger_kernel") is True:
        draft_.put("kernels.liger", True)


def _adapter(config: Config, draft_: Draft) -> None:
    kind = config.get("finetuning_type", "lora")
    draft_.put("adapter.type", "none" if kind == "full" else kind)
    if kind != "lora":
        for field in ("rank", "dropout", "dora", "rslora"):
            draft_.document.get("adapter", {}).pop(field, None)
        return
    rank = config.get("lora_rank", 8)
    draft_.put("adapter.rank", rank)
    double = 2 * rank if isinstance(rank, int) else None
    draft_.put("adapter.alpha", config.get("lora_alpha") or double)
    targets = _names(config.get("lora_target", "all"))
    draft_.put("adapter.targets", "all-linear" if targets == ["all"] else targets)
    draft_.put("adapter.modules_to_save", _names(config.get("additional_target")) or None)
    if config.get("pissa_init") is True:
        steps = config.get("pissa_iter", 16)
        draft_.put("adapter.init", "pissa" if steps == -1 else f"pissa_niter_{steps}")


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [str(name) for name in value] if isinstance(value, list) else []


def _data(config: Config, draft_: Draft, info: Mapping[str, Any] | None) -> None:
    for key, field in (("dataset", "data.sources"), ("eval_dataset", "data.validation_sources")):
        names = _names(config.get(key))
        if names:
            draft_.put(field, sources(names, info))
    if described(config, info):
        draft_.document["data"].pop("registry", None)
    if config.get("eval_dataset"):
        draft_.document["data"].pop("validation", None)
    if config.get("tokenized_path") and not config.get("dataset"):
        path = config["tokenized_path"]
        draft_.put("data.sources", [{"path": path, "format": "registered"}])
    template = config.get("template")
    known = (key for key, value in TEMPLATES.items() if value.llamafactory == template)
    draft_.put("data.chat_template", next(known, template) if template else TOKENIZER)
    draft_.put("data.tokenization", "backend")  # the same configuration trains the same tokens
    packing = config.get("packing")
    if packing is None:
        packing = config.get("stage") == "pt"
    neat = config.get("neat_packing") is True
    draft_.put("data.packing", packing or neat)
    if packing and not neat and config.get("stage", "sft") == "sft":
        draft_.put("data.packing_mixes", True)
    if config.get("disable_shuffling") is not None:
        draft_.put("data.shuffle", not config["disable_shuffling"])
    if config.get("train_on_prompt") is True:
        draft_.put("data.train_on", "all")
    elif config.get("mask_history") is True:
        draft_.put("data.train_on", "last_assistant")
    folder = config.get("tokenized_path")
    draft_.put("data.prepared", folder) if folder else draft_.leave("data.prepared")


def described(config: Config, info: Mapping[str, Any] | None) -> bool:
    """Whether `info` has an entry for every data set that is named."""
    names = [*_names(config.get("dataset")), *_names(config.get("eval_dataset"))]
    return bool(info and names) and all(isinstance((info or {}).get(name), dict) for name in names)


def sources(names: list[str], info: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The sources of these names, described if all of them are in `info`."""
    if info and all(isinstance(info.get(name), dict) for name in names):
        return [source_from(info[name]) for name in names]
    return [{"path": name, "format": "registered"} for name in names]


def _training(config: Config, draft_: Draft) -> None:
    names = {native: neutral for neutral, native in STAGES.items() if neutral != "orpo"}
    stage = names.get(str(config.get("stage")), "sft")
    loss = config.get("pref_loss")
    if stage == "dpo" and loss == "orpo":
        stage = "orpo"
    elif loss:
        draft_.put("training.preference.loss", loss)
    draft_.put("training.stage", stage)
    steps = config.get("max_steps", -1)
    if isinstance(steps, int) and steps > 0:
        draft_.put("training.steps", steps)
    else:
        draft_.put("training.epochs", config.get("num_train_epochs", 3.0))
    if config.get("warmup_steps") is not None and not config.get("warmup_ratio"):
        draft_.put("training.warmup_steps", config["warmup_steps"])
    if config.get("early_stopping_steps") and not config.get("load_best_model_at_end"):
        draft_.put("training.keep_best", False)
    switch = next((name for name, key in SWITCHES.items() if config.get(key) is True), None)
    draft_.put("training.optimizer", config.get("optim") or switch or "adamw_torch_fused")
    off = config.get("disable_gradient_checkpointing") is True
    unsloth = config.get("use_unsloth_gc") is True
    draft_.put("training.gradient_checkpointing", "unsloth" if unsloth else not off)
    if "train_sampling_strategy" in config:
        grouped = config["train_sampling_strategy"] == "group_by_length"
        draft_.put("training.group_by_length", grouped)
    draft_.put("training.save", _cadence(config, "save", "steps", 500))
    limit = config.get("save_total_limit")
    draft_.put("training.keep_checkpoints", limit) if limit else draft_.leave(
        "training.keep_checkpoints"
    )
    draft_.put("training.evaluate", _cadence(config, "eval", "no", 500))
    if not (config.get("val_size") or config.get("eval_dataset")) and "eval_strategy" in config:
        draft_.leave("training.evaluate")


def _cadence(config: Config, what: str, default: str, steps: int) -> Any:
    strategy = config.get(f"{what}_strategy", default)
    if strategy == "steps":
        given = config.get(f"{what}_steps", steps)
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        whole = number and given >= 1 and float(given).is_integer()
        return int(given) if whole else given
    return "never" if strategy == "no" else strategy


def _running(config: Config, draft_: Draft) -> None:
    if isinstance(config.get("deepspeed"), str):
        draft_.put("distributed.strategy", "deepspeed")
        draft_.put("distributed.deepspeed_file", config["deepspeed"])
    elif config.get("fsdp"):
        draft_.put("distributed.strategy", "fsdp")
    trackers = effective(config, "llamafactory").get("report_to", ["none"])
    draft_.put("tracking.type", trackers[0] if len(trackers) == 1 else "none")
    counts = config.get("include_num_input_tokens_seen", False)
    draft_.put("tracking.token_counts", counts)
    folder = config.get("output_dir")
    draft_.put("output.training_directory", folder) if folder else draft_.leave(
        "output.training_directory"
    )
