"""A recipe as LLaMA-Factory's configuration: one dictionary, pure.

LLaMA-Factory checks names but no types or choices, and its defaults differ from axolotl's almost
everywhere, so everything is written out, in the types that it wants. Fields that are one key come
from `backends.fields`.
"""

import re
from typing import Any

from orchestrator.backends import capabilities, fields
from orchestrator.backends.base import Paths, Target, merged, warmup
from orchestrator.backends.llamafactory.data import registered
from orchestrator.distributed import deepspeed, fsdp
from orchestrator.recipe.models import Cadence, Recipe
from orchestrator.templates import TEMPLATES, TOKENIZER

STAGES = {
    "pretrain": "pt", "sft": "sft", "dpo": "dpo", "orpo": "dpo", "kto": "kto", "reward": "rm",
    "ppo": "ppo",
}  # fmt: skip
ATTENTION = {
    "auto": "auto",
    "eager": "disabled",
    "sdpa": "sdpa",
    "flash_attention_2": "fa2",
    "flash_attention_3": "fa3",
}
SWITCHES = {"muon": "use_muon", "adam_mini": "use_adam_mini"}
PISSA = re.compile(r"pissa(?:_niter_(\d+))?")


def build(
    recipe: Recipe, paths: Paths, target: Target, train: int, validation: int
) -> dict[str, Any]:
    """The training configuration of so many sources."""
    config = {
        **_model(recipe, paths),
        "stage": STAGES.get(recipe.training.stage, "sft"),
        "do_train": True,
        **_adapter(recipe),
        **_data(recipe, paths, train, validation),
        **_training(recipe, target),
        **_distributed(recipe, paths),
        **_tracking(recipe),
    }
    if paths.training:
        config["output_dir"] = paths.training
    config["overwrite_output_dir"] = recipe.output.overwrite
    config = merged(config, fields.render(recipe, "llamafactory"))
    return merged(config, recipe.native.llamafactory)


def _model(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    model = recipe.model
    config: dict[str, Any] = {"model_name_or_path": paths.base or model.base}
    if model.revision:
        config["model_revision"] = model.revision
    config |= {
        "trust_remote_code": model.trust_remote_code,
        "flash_attn": ATTENTION.get(model.attention, "auto"),
    }
    if model.quantization != "none":
        config["quantization_method"] = "bnb"
        config["quantization_bit"] = 4 if model.quantization == "nf4" else 8
        if model.quantization == "nf4":
            double = model.double_quantization is not False
            config |= {"quantization_type": "nf4", "double_quantization": double}
    if model.tf32 != "auto":
        config["tf32"] = model.tf32
    if recipe.kernels.liger:
        config["enable_liger_kernel"] = True
    return config


def _adapter(recipe: Recipe) -> dict[str, Any]:
    adapter = recipe.adapter
    if adapter.type != "lora":
        return {"finetuning_type": "full" if adapter.type == "none" else adapter.type}
    config: dict[str, Any] = {
        "finetuning_type": "lora",
        "lora_rank": adapter.rank,
        "lora_alpha": max(1, round(adapter.alpha)),
        "lora_dropout": adapter.dropout,
    }
    if isinstance(adapter.targets, tuple):
        config["lora_target"] = ",".join(adapter.targets)
    else:
        config["lora_target"] = "all"
    if adapter.modules_to_save:
        config["additional_target"] = ",".join(adapter.modules_to_save)
    if adapter.dora:
        config["use_dora"] = True
    if adapter.rslora:
        config["use_rslora"] = True
    if adapter.loraplus_ratio:
        config["loraplus_lr_ratio"] = adapter.loraplus_ratio
    pissa = PISSA.fullmatch(str(adapter.init))
    if pissa:
        config |= {"pissa_init": True, "pissa_iter": int(pissa.group(1) or -1)}
    return config


def _data(recipe: Recipe, paths: Paths, train: int, validation: int) -> dict[str, Any]:
    data, stage = recipe.data, recipe.training.stage
    config = _sources(recipe, paths, train, validation)
    if not validation and data.validation:
        size = data.validation
        config["val_size"] = int(size) if size >= 1 else size
    known = TEMPLATES.get(data.chat_template)
    if data.chat_template != TOKENIZER and not data.chat_template.endswith(".jinja"):
        config["template"] = known.llamafactory if known else data.chat_template
    if data.default_system:
        config["default_system"] = data.default_system
    config |= {
        "cutoff_len": data.sequence_length,
        "packing": data.packing,
        # packing alone lets sequences see each other
        "neat_packing": data.packing and stage == "sft" and not data.packing_mixes,
    }
    if paths.prepared:
        config["tokenized_path"] = paths.prepared
    if data.shuffle is not None:
        config["disable_shuffling"] = not data.shuffle
    if stage == "sft":
        config["train_on_prompt"] = data.train_on == "all"
        config["mask_history"] = data.train_on == "last_assistant"
    if data.workers:
        config["preprocessing_num_workers"] = data.workers
    return config


def _sources(recipe: Recipe, paths: Paths, train: int, validation: int) -> dict[str, Any]:
    """Names in a `dataset_info.json`: of the run's own, or of the one that is there already."""
    data = recipe.data
    if not registered(recipe):
        config = {
            "dataset": ",".join(f"train_{i}" for i in range(train)),
            "dataset_dir": paths.rendered,
        }
        if validation:
            config["eval_dataset"] = ",".join(f"validation_{i}" for i in range(validation))
        return config
    config = {"dataset": ",".join(s.path for s in data.sources), "dataset_dir": data.registry}
    if data.validation_sources:
        config["eval_dataset"] = ",".join(s.path for s in data.validation_sources)
    return config


def _training(recipe: Recipe, target: Target) -> dict[str, Any]:
    training = recipe.training
    dtype = target.dtype(recipe.model.dtype)
    config: dict[str, Any] = {
        "per_device_train_batch_size": training.micro_batch_size,
        "per_device_eval_batch_size": training.eval_batch_size or training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
    }
    config |= {"max_steps": training.steps} if training.steps else {}
    config["num_train_epochs"] = training.epochs or 1.0
    config |= {
        "learning_rate": training.learning_rate,
        **warmup(recipe),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        **_optimizer(recipe),
        **_scheduler(recipe),
        "disable_gradient_checkpointing": not training.gradient_checkpointing,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
    }
    if training.reentrant is not None:
        config["use_reentrant_gc"] = training.reentrant
    if training.gradient_checkpointing == "unsloth":
        config["use_unsloth_gc"] = True
    if training.group_by_length is not None:
        order = "group_by_length" if training.group_by_length else "random"
        config["train_sampling_strategy"] = order
    if training.neftune_alpha:
        config["neftune_noise_alpha"] = training.neftune_alpha
    config["seed"] = training.seed
    if training.log_every is not None:
        config["logging_steps"] = training.log_every
    config |= _saving(recipe)
    preference = training.preference
    if training.stage in ("dpo", "orpo", "kto"):
        config["pref_beta"] = preference.beta
    if training.stage in ("dpo", "orpo"):
        config["pref_loss"] = "orpo" if training.stage == "orpo" else preference.loss
        if preference.loss == "simpo":
            config["simpo_gamma"] = preference.simpo_gamma
    return config


def _optimizer(recipe: Recipe) -> dict[str, Any]:
    """Two optimizers are switches of their own."""
    name = recipe.training.optimizer
    if name in SWITCHES:
        return {SWITCHES[name]: True}
    return {"optim": name} if name in capabilities.optimizers("llamafactory") else {}


def _scheduler(recipe: Recipe) -> dict[str, Any]:
    """A name that LLaMA-Factory does not have is left out; checks have told of it."""
    name = recipe.training.scheduler
    return {"lr_scheduler_type": name} if name in capabilities.schedulers("llamafactory") else {}


def _saving(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    config = _cadence("save", training.save, training.epochs)
    if training.keep_checkpoints is not None:
        config["save_total_limit"] = training.keep_checkpoints
    config |= _cadence("eval", training.evaluate, training.epochs)
    if training.early_stopping:
        config["early_stopping_steps"] = training.early_stopping
    if training.early_stopping and training.keep_best is not False:
        config |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return config


def _cadence(what: str, cadence: Cadence | None, epochs: float | None) -> dict[str, Any]:
    """`save` or `eval`. N times per epoch is a share of the run, which HF's trainer takes too."""
    match cadence:
        case None:
            return {}
        case "never":
            return {f"{what}_strategy": "no"}
        case "epoch" | "best" | "1/epoch":
            return {f"{what}_strategy": cadence.removeprefix("1/")}
        case str():
            share = 1 / (int(cadence.removesuffix("/epoch")) * (epochs or 1))
            return {f"{what}_strategy": "steps", f"{what}_steps": round(share, 6)}
        case _:
            return {f"{what}_strategy": "steps", f"{what}_steps": cadence}


def _distributed(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    spread = recipe.distributed
    if spread.strategy == "deepspeed":
        return {"deepspeed": deepspeed.named(recipe, paths)}
    if spread.strategy == "fsdp" and spread.fsdp and spread.fsdp.options:
        return {"fsdp": " ".join(spread.fsdp.options)}
    if spread.strategy == "fsdp" and not spread.fsdp:
        made = fsdp.settings(recipe)
        offload = " offload" if made["offload_params"] else ""
        return {
            "fsdp": f"full_shard auto_wrap{offload}",
            "fsdp_config": {
                "fsdp_version": made["version"],
                "reshard_after_forward": made["reshard_after_forward"],
                "cpu_ram_efficient_loading": made["cpu_ram_efficient_loading"],
            },
        }
    return {}


def _tracking(recipe: Recipe) -> dict[str, Any]:
    tracking = recipe.tracking
    counts: Any = tracking.token_counts
    if isinstance(counts, bool):
        counts = "all" if counts else "no"
    config: dict[str, Any] = {
        "report_to": tracking.type,
        "plot_loss": recipe.output.plot_loss,
        "include_num_input_tokens_seen": counts,
    }
    if tracking.run_name:
        config["run_name"] = tracking.run_name
    return config
