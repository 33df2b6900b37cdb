"""An axolotl configuration as a draft of a recipe.

Only what rendering would write back is mapped; what is overseen here shows as a difference and
becomes native, so nothing gets lost.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.backends.axolotl.config import CUT_CROSS_ENTROPY_PLUGIN, LIGER_PARTS, LIGER_PLUGIN
from orchestrator.importing.axolotl_data import data, entries_of, options_of
from orchestrator.importing.draft import Draft

Config = Mapping[str, Any]
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
    data(config, draft_)
    _training(config, draft_)
    _running(config, draft_)
    if "batch_size" in config and "gradient_accumulation_steps" not in config:
        # axolotl refuses both, even where one is the default
        draft_.document["native"] = {"axolotl": {"gradient_accumulation_steps": None}}


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
        reentrant = options_of(config.get("gradient_checkpointing_kwargs")).get("use_reentrant")
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
    streams = entries_of(config, "pretraining_dataset")
    kinds = [entry.get("type") for entry in streams or entries_of(config, "datasets")]
    usual = (None, "pretrain") if streams else ("completion",)
    return "pretrain" if kinds and all(kind in usual for kind in kinds) else "sft"


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
