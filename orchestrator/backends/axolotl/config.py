"""A recipe as axolotl's configuration: one dictionary, pure.

Every setting whose default differs from LLaMA-Factory's is written out, so that a recipe means the
same on both and an upgrade cannot move it. Fields that are one key come from `backends.fields`.
"""

from typing import Any

from orchestrator.backends import fields
from orchestrator.backends.axolotl.data import CHATS, dataset, streamed
from orchestrator.backends.base import Paths, Target, merged, warmup
from orchestrator.distributed import deepspeed, fsdp
from orchestrator.recipe.models import Cadence, Recipe
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

RL = {stage: stage for stage in ("dpo", "orpo", "kto", "grpo", "gdpo", "ebft")}
FLAGS = {"reward": "reward_model", "process_reward": "process_reward_model"}
TRACKERS = ("tensorboard", "mlflow", "comet", "trackio", "swanlab")
LIGER_PLUGIN = "axolotl.integrations.liger.LigerPlugin"
CUT_CROSS_ENTROPY_PLUGIN = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
LIGER_PARTS = {
    "rope": "liger_rope",
    "rms_norm": "liger_rms_norm",
    "rms_norm_gated": "liger_rms_norm_gated",
    "glu": "liger_glu_activation",
    "layer_norm": "liger_layer_norm",
    "cross_entropy": "liger_cross_entropy",
    "fused_cross_entropy": "liger_fused_linear_cross_entropy",
}
LIGER_USUAL = ("rope", "rms_norm", "glu", "fused_cross_entropy")
"""What LLaMA-Factory's one switch turns on."""


def build(recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
    """The training configuration."""
    config = {
        **_model(recipe, paths, target),
        **_kernels(recipe),
        **_adapter(recipe),
        **_data(recipe, paths),
        **_training(recipe),
        **_distributed(recipe, paths),
        **_tracking(recipe),
    }
    if paths.training:
        config["output_dir"] = paths.training
    config = merged(config, fields.render(recipe, "axolotl"))
    if target.device == "cpu" and recipe.adapter.type == "lora":
        # chosen by themselves otherwise; they are Triton kernels and die without a GPU
        config |= {"lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False}
    return merged(config, recipe.native.axolotl)


def _model(recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
    model = recipe.model
    config: dict[str, Any] = {"base_model": paths.base or model.base}
    if model.revision:
        config["revision_of_model"] = model.revision
    config["trust_remote_code"] = model.trust_remote_code
    if model.attention != "auto":
        config["attn_implementation"] = model.attention
    return config | precision(recipe, target)


def precision(recipe: Recipe, target: Target, *, settled: bool = False) -> dict[str, Any]:
    """Computation types. `auto` stays axolotl's own `auto` on a GPU that has bfloat16.

    It decides by the machine that it runs on, so preprocessing on a node without a GPU does not
    fail; `settled` writes what it comes to, which a merge needs to be the same everywhere.
    """
    model = recipe.model
    dtype = target.dtype(model.dtype)
    gpu = target.device == "cuda" and target.bf16
    free = model.dtype == "auto" and gpu and not settled
    tf32: bool | str = model.tf32
    if tf32 == "auto" and (settled or not gpu):
        tf32 = dtype == "bfloat16"
    bf16: bool | str = "auto" if free else dtype == "bfloat16"
    return {"bf16": bf16, "fp16": dtype == "float16", "tf32": tf32}


def _kernels(recipe: Recipe) -> dict[str, Any]:
    kernels = recipe.kernels
    plugins, config = list(kernels.plugins), dict[str, Any]()
    if kernels.liger:
        if LIGER_PLUGIN not in plugins:
            plugins.append(LIGER_PLUGIN)
        parts = kernels.liger if isinstance(kernels.liger, tuple) else LIGER_USUAL
        config |= {LIGER_PARTS[part]: True for part in parts}
    if kernels.cut_cross_entropy and CUT_CROSS_ENTROPY_PLUGIN not in plugins:
        plugins.append(CUT_CROSS_ENTROPY_PLUGIN)
    elif kernels.cut_cross_entropy is False:
        config["cut_cross_entropy"] = False
    return {"plugins": plugins, **config} if plugins else config


def _adapter(recipe: Recipe) -> dict[str, Any]:
    adapter, quantization = recipe.adapter, recipe.model.quantization
    if adapter.type != "lora":
        return {}
    config: dict[str, Any] = {
        "adapter": "qlora" if quantization == "nf4" else "lora",
        "load_in_4bit": quantization == "nf4",
        "load_in_8bit": quantization == "int8",
        "lora_r": adapter.rank,
        "lora_alpha": whole(adapter.alpha),
        "lora_dropout": adapter.dropout,
    }
    if adapter.targets == "all-linear":
        config["lora_target_linear"] = True
    elif isinstance(adapter.targets, str):
        config["lora_target_modules"] = adapter.targets
    elif adapter.targets is not None:
        config["lora_target_modules"] = list(adapter.targets)
    if adapter.linear_too:
        config["lora_target_linear"] = True
    if adapter.modules_to_save:
        config["lora_modules_to_save"] = list(adapter.modules_to_save)
    if adapter.dora:
        config["peft_use_dora"] = True
    if adapter.rslora:
        config["peft_use_rslora"] = True
    if adapter.loraplus_ratio:
        config["loraplus_lr_ratio"] = adapter.loraplus_ratio
    if adapter.init is not None:
        config["peft_init_lora_weights"] = adapter.init
    if recipe.model.double_quantization is False:
        config["bnb_config_kwargs"] = {"bnb_4bit_use_double_quant": False}
    return config


def _data(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    data = recipe.data
    where = paths.sources or tuple(source.path for source in data.sources)
    entries = [dataset(recipe, s, path) for s, path in zip(data.sources, where, strict=True)]
    config: dict[str, Any] = {"pretraining_dataset" if streamed(recipe) else "datasets": entries}
    if data.validation_sources:
        others = paths.validation_sources or tuple(s.path for s in data.validation_sources)
        config["test_datasets"] = [
            dataset(recipe, s, path)
            for s, path in zip(data.validation_sources, others, strict=True)
        ]
    else:
        config["val_set_size"] = whole(data.validation)
    if paths.prepared:
        config["dataset_prepared_path"] = paths.prepared
    config |= {"sequence_len": data.sequence_length, "sample_packing": data.packing}
    if recipe.training.stage in ("pretrain", "sft"):
        strategies = {"drop": "drop", "backend": "drop", "truncate": "truncate", "error": "raise"}
        config["excess_length_strategy"] = strategies[data.overlong]
        config["train_on_inputs"] = data.train_on == "all"
    if data.packing and data.packing_evaluation is not None:
        config["eval_sample_packing"] = data.packing_evaluation
    if data.packing or data.pad is not None:
        config["pad_to_sequence_len"] = True if data.pad is None else data.pad
    if data.shuffle is not None:
        config["shuffle_merged_datasets"] = data.shuffle
    if data.workers:
        config["dataset_num_proc"] = data.workers
    return config | _template(recipe, paths)


def _template(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    data = recipe.data
    name = data.chat_template
    known = TEMPLATES.get(name)
    config: dict[str, Any] = {}
    if name.endswith(".jinja"):
        config |= {"chat_template": "jinja", "chat_template_jinja": paths.template or name}
    elif name == TOKENIZER:
        # mistral-common brings its own, and axolotl refuses to name another
        own = recipe.model.mistral_tokenizer
        if not own and any(s.format in CHATS and not s.chat_template for s in data.sources):
            config["chat_template"] = "tokenizer_default"
    elif name != ALPACA:
        config["chat_template"] = known.axolotl if known else name
    stops = data.stop_tokens or ((known.stop,) if known and known.stop else ())
    if stops and data.stop_tokens is not None and recipe.training.stage == "sft":
        config["eot_tokens"] = list(stops)
    if data.default_system and name not in (ALPACA, TOKENIZER):
        config["default_system_message"] = data.default_system
    return config


def _training(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    config: dict[str, Any] = {
        "micro_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "eval_batch_size": training.eval_batch_size or training.micro_batch_size,
    }
    if training.steps:
        config["max_steps"] = training.steps
    config["num_epochs"] = training.epochs or 1.0
    config |= {
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.scheduler,
        **warmup(recipe),
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
    }
    if training.gradient_checkpointing == "unsloth":
        config["gradient_checkpointing"] = True
    if training.gradient_checkpointing and training.reentrant is not None:
        config["gradient_checkpointing_kwargs"] = {"use_reentrant": training.reentrant}
    if training.group_by_length is not None:
        config["group_by_length"] = training.group_by_length
    if training.neftune_alpha:
        config["neftune_noise_alpha"] = training.neftune_alpha
    config["seed"] = training.seed
    if training.log_every is not None:
        config["logging_steps"] = training.log_every
    return config | _saving(recipe) | _preference(recipe)


def _saving(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    config = _cadence("save", training.save)
    if training.keep_checkpoints is not None:
        config["save_total_limit"] = training.keep_checkpoints
    config |= _cadence("eval", training.evaluate)
    if training.early_stopping:
        config["early_stopping_patience"] = training.early_stopping
    if training.early_stopping and training.keep_best is not False:
        config |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return config


def _cadence(what: str, cadence: Cadence | None) -> dict[str, Any]:
    """`save` or `eval`: a strategy with its steps, or axolotl's own `saves_per_epoch`."""
    match cadence:
        case None:
            return {}
        case "never":
            return {f"{what}_strategy": "no"}
        case "epoch" | "best":
            return {f"{what}_strategy": cadence}
        case str():
            return {f"{what}s_per_epoch": int(cadence.removesuffix("/epoch"))}
        case _:
            return {f"{what}_strategy": "steps", f"{what}_steps": cadence}


def _preference(recipe: Recipe) -> dict[str, Any]:
    stage, preference = recipe.training.stage, recipe.training.preference
    if stage in FLAGS:
        return {FLAGS[stage]: True}
    if stage not in RL:
        return {}
    if stage in ("grpo", "gdpo", "ebft"):
        return {"rl": RL[stage]}
    if stage == "dpo" and preference.loss == "simpo":
        return {
            "rl": "simpo",
            "rl_beta": preference.beta,
            "cpo_alpha": 0.0,
            "simpo_gamma": preference.simpo_gamma,
        }
    config: dict[str, Any] = {"rl": RL[stage], "rl_beta": preference.beta}
    if stage == "dpo":
        config["dpo_loss_type"] = [preference.loss]
    else:
        config["remove_unused_columns"] = False
    return config


def _distributed(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    spread = recipe.distributed
    if spread.strategy == "deepspeed":
        return {"deepspeed": deepspeed.named(recipe, paths)}
    if spread.strategy == "fsdp" and not spread.fsdp:
        made = fsdp.settings(recipe)
        return {"fsdp_version": made.pop("version"), "fsdp_config": made}
    return {}


def _tracking(recipe: Recipe) -> dict[str, Any]:
    tracking = recipe.tracking
    config: dict[str, Any] = {}
    if tracking.type == "wandb":
        config = {"use_wandb": True, "wandb_project": tracking.project or recipe.name}
        if tracking.entity:
            config["wandb_entity"] = tracking.entity
        if tracking.run_name:
            config["wandb_name"] = tracking.run_name
    elif tracking.type in TRACKERS:
        config[f"use_{tracking.type}"] = True
    return config


def whole(value: float) -> float | int:
    """A number that is whole as one."""
    return int(value) if float(value).is_integer() else value
