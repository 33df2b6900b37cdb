"""A recipe as LLaMA-Factory configuration.

LLaMA-Factory checks names but no types or choices, and its defaults differ from axolotl's almost
everywhere, so everything is written out, in the types that it wants.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator import distributed
from orchestrator.backends.base import Paths, Rendered, RenderedFile, Target, merged_native
from orchestrator.backends.keys import load_keys
from orchestrator.backends.llamafactory.data import dataset_info
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from orchestrator.templates import TEMPLATES, TOKENIZER
from orchestrator.yaml_out import dump

STAGES = {"pretrain": "pt", "sft": "sft", "dpo": "dpo", "orpo": "dpo", "kto": "kto", "reward": "rm"}
ATTENTION = {
    "auto": "auto",
    "eager": "disabled",
    "sdpa": "sdpa",
    "flash_attention_2": "fa2",
    "flash_attention_3": "fa3",
}


class LlamaFactory:
    """See `backends.base.Backend`."""

    name = "llamafactory"
    label = "LLaMA-Factory"

    def render(self, recipe: Recipe, paths: Paths, target: Target) -> Rendered:
        """`preprocess.yaml`, `train.yaml`, `merge.yaml`, `dataset_info.json`, `deepspeed.json`."""
        train = list(paths.sources or (source.path for source in recipe.data.sources))
        validation = list(
            paths.validation_sources or (source.path for source in recipe.data.validation_sources)
        )
        config = {
            **_model(recipe, paths),
            "stage": STAGES[recipe.training.stage],
            "do_train": True,
            **_adapter(recipe),
            **_data(recipe, paths, len(train), len(validation)),
            **_training(recipe, target),
            **_distributed(recipe, paths),
            **_tracking(recipe),
            "output_dir": paths.training,
            "overwrite_output_dir": True,
        }
        config = merged_native(config, recipe.native.llamafactory)
        info = json.dumps(dataset_info(recipe, train, validation), indent=2, ensure_ascii=False)
        files = [
            RenderedFile("preprocess.yaml", dump(_without_cluster(config))),
            RenderedFile("train.yaml", dump(config)),
            RenderedFile("dataset_info.json", info + "\n"),
        ]
        if recipe.adapter.type == "lora" and recipe.output.merge:
            files.append(RenderedFile("merge.yaml", dump(_merge(recipe, paths, target))))
        if recipe.distributed.strategy == "deepspeed":
            document = distributed.for_recipe(
                recipe, target.dtype(recipe.model.dtype), cpu=target.device == "cpu"
            )
            files.append(RenderedFile("deepspeed.json", distributed.as_text(document)))
        variables = {}
        if recipe.tracking.type == "wandb":
            variables["WANDB_PROJECT"] = recipe.tracking.project or recipe.name
            if recipe.tracking.entity:
                variables["WANDB_ENTITY"] = recipe.tracking.entity
        return Rendered(tuple(files), variables)

    def findings(self, recipe: Recipe) -> Iterator[Finding]:
        """What llamafactory 0.9.5 cannot do, or does otherwise."""
        data, stage = recipe.data, recipe.training.stage
        if data.overlong in ("drop", "error"):
            yield Finding(
                "FT401",
                "error",
                "llamafactory cuts long rows and can do nothing else",
                field="data.overlong",
                fix="overlong: truncate, or --backend axolotl",
            )
        if data.stop_tokens:
            yield Finding(
                "FT401",
                "error",
                "llamafactory takes stop tokens from its template only",
                field="data.stop_tokens",
                fix="remove it, or --backend axolotl",
            )
        if data.chat_template.endswith(".jinja"):
            yield Finding(
                "FT401",
                "error",
                "llamafactory cannot use a template file",
                field="data.chat_template",
                fix="put it into the model's tokenizer and say `tokenizer`",
            )
        if data.packing and stage not in ("pretrain", "sft"):
            yield Finding(
                "FT404",
                "error",
                f"llamafactory cannot pack {stage} data",
                field="data.packing",
                fix="packing: false",
            )
        if stage not in ("pretrain", "sft") and data.train_on != "assistant":
            yield Finding(
                "FT404",
                "error",
                f"llamafactory cannot change what {stage} trains on",
                field="data.train_on",
            )
        if stage == "reward" and recipe.training.early_stopping:
            yield Finding(
                "FT404",
                "error",
                "llamafactory cannot keep the best reward model",
                field="training.early_stopping",
            )
        if recipe.adapter.type == "lora" and not float(recipe.adapter.alpha).is_integer():
            yield Finding(
                "FT401",
                "error",
                "llamafactory takes whole numbers for alpha",
                field="adapter.alpha",
                fix=f"--set adapter.alpha={max(1, round(recipe.adapter.alpha))}",
            )
        known = TEMPLATES.get(data.chat_template)
        template = (known.llamafactory if known else data.chat_template) or ""
        if data.train_on == "all" and _templates().get(template, {}).get("efficient_eos"):
            yield Finding(
                "FT404",
                "error",
                f"llamafactory cannot train on prompts with the template {template}",
                field="data.train_on",
            )
        for field, source in data.all_sources():
            if stage == "sft" and source.format == "text":
                yield Finding(
                    "FT401",
                    "error",
                    "llamafactory trains on plain text in the pretrain stage only",
                    field=f"{field}.format",
                    fix="--set training.stage=pretrain",
                )
            if source.revision:
                yield Finding(
                    "FT401",
                    "error",
                    "llamafactory cannot pin a data set's revision",
                    field=f"{field}.revision",
                    fix="download that revision and name the file",
                )

    def template_names(self) -> tuple[str, ...]:
        """Names that `template` accepts."""
        return tuple(load_keys(self.name).get("templates", ()))

    def native_keys(self) -> Mapping[str, Any]:
        """All keys of the training arguments."""
        keys: Mapping[str, Any] = load_keys(self.name)["keys"]
        return keys


def _templates() -> Mapping[str, Any]:
    """LLaMA-Factory's own templates by name."""
    templates: Mapping[str, Any] = load_keys("llamafactory").get("templates", {})
    return templates


def _model(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    model = recipe.model
    config: dict[str, Any] = {"model_name_or_path": paths.base or model.base}
    if model.revision:
        config["model_revision"] = model.revision
    config |= {
        "trust_remote_code": model.trust_remote_code,
        "flash_attn": ATTENTION[model.attention],
    }
    if model.quantization != "none":
        config["quantization_method"] = "bnb"
        config["quantization_bit"] = 4 if model.quantization == "nf4" else 8
        if model.quantization == "nf4":
            config |= {"quantization_type": "nf4", "double_quantization": True}
    return config


def _adapter(recipe: Recipe) -> dict[str, Any]:
    adapter = recipe.adapter
    if adapter.type == "none":
        return {"finetuning_type": "full"}
    config: dict[str, Any] = {
        "finetuning_type": "lora",
        "lora_rank": adapter.rank,
        "lora_alpha": int(adapter.alpha),
        "lora_dropout": adapter.dropout,
        "lora_target": "all" if adapter.targets == "all-linear" else ",".join(adapter.targets),
    }
    if adapter.modules_to_save:
        config["additional_target"] = ",".join(adapter.modules_to_save)
    if adapter.dora:
        config["use_dora"] = True
    if adapter.rslora:
        config["use_rslora"] = True
    if adapter.loraplus_ratio:
        config["loraplus_lr_ratio"] = adapter.loraplus_ratio
    return config


def _data(recipe: Recipe, paths: Paths, train: int, validation: int) -> dict[str, Any]:
    data, stage = recipe.data, recipe.training.stage
    config: dict[str, Any] = {
        "dataset": ",".join(f"train_{i}" for i in range(train)),
        "dataset_dir": paths.rendered,
    }
    if validation:
        config["eval_dataset"] = ",".join(f"validation_{i}" for i in range(validation))
    elif data.validation:
        size = data.validation
        config["val_size"] = int(size) if size >= 1 else size
    known = TEMPLATES.get(data.chat_template)
    if data.chat_template != TOKENIZER:
        config["template"] = known.llamafactory if known else data.chat_template
    if data.default_system:
        config["default_system"] = data.default_system
    config |= {
        "cutoff_len": data.sequence_length,
        "tokenized_path": paths.prepared,
        "packing": data.packing,
        # packing alone lets sequences see each other
        "neat_packing": data.packing and stage == "sft",
    }
    if stage == "sft":
        config["train_on_prompt"] = data.train_on == "all"
        config["mask_history"] = data.train_on == "last_assistant"
    if data.workers:
        config["preprocessing_num_workers"] = data.workers
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
        "lr_scheduler_type": training.scheduler,
        **_warmup(recipe),
        "optim": training.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "disable_gradient_checkpointing": not training.gradient_checkpointing,
        "use_reentrant_gc": False,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
    }
    if training.neftune_alpha:
        config["neftune_noise_alpha"] = training.neftune_alpha
    config |= {"seed": training.seed, "logging_steps": training.log_every, **_saving(recipe)}
    preference = training.preference
    if training.stage in ("dpo", "orpo", "kto"):
        config["pref_beta"] = preference.beta
    if training.stage in ("dpo", "orpo"):
        config["pref_loss"] = "orpo" if training.stage == "orpo" else preference.loss
        if preference.loss == "simpo":
            config["simpo_gamma"] = preference.simpo_gamma
    return config


def _warmup(recipe: Recipe) -> dict[str, Any]:
    """Only one of the two: the ratio, even 0.0, silently overrides the steps."""
    if recipe.training.warmup_ratio:
        return {"warmup_ratio": recipe.training.warmup_ratio}
    return {"warmup_steps": recipe.training.warmup_steps}


def _saving(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    config: dict[str, Any] = {}
    if isinstance(training.save, int):
        config |= {"save_strategy": "steps", "save_steps": training.save}
    else:
        config["save_strategy"] = "no" if training.save == "never" else "epoch"
    config["save_total_limit"] = training.keep_checkpoints
    if isinstance(training.evaluate, int):
        config |= {"eval_strategy": "steps", "eval_steps": training.evaluate}
    else:
        config["eval_strategy"] = "no" if training.evaluate == "never" else "epoch"
    if training.early_stopping:
        config |= {
            "early_stopping_steps": training.early_stopping,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return config


def _distributed(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    spread = recipe.distributed
    if spread.strategy == "deepspeed":
        return {"deepspeed": f"{paths.rendered}/deepspeed.json"}
    if spread.strategy == "fsdp":
        offload = " offload" if spread.offload != "none" else ""
        return {
            "fsdp": f"full_shard auto_wrap{offload}",
            "fsdp_config": {
                "fsdp_version": 2,
                "reshard_after_forward": True,
                "cpu_ram_efficient_loading": recipe.model.quantization != "nf4",
            },
        }
    return {}


def _tracking(recipe: Recipe) -> dict[str, Any]:
    tracking = recipe.tracking
    config: dict[str, Any] = {
        "report_to": tracking.type,
        "plot_loss": False,
        "include_num_input_tokens_seen": "all",
    }
    if tracking.type == "wandb" and tracking.run_name:
        config["run_name"] = tracking.run_name
    return config


def _without_cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenizing takes one process and no tracker."""
    apart = ("deepspeed", "fsdp", "fsdp_config", "run_name")
    return {key: value for key, value in config.items() if key not in apart} | {"report_to": "none"}


def _merge(recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
    """The export command's file. It never carries quantization: the merge is into the base."""
    known = TEMPLATES.get(recipe.data.chat_template)
    config: dict[str, Any] = {
        "model_name_or_path": paths.base or recipe.model.base,
        "adapter_name_or_path": paths.training,
        "finetuning_type": "lora",
        "trust_remote_code": recipe.model.trust_remote_code,
        "export_dir": paths.merged,
        "export_size": 5,
        "export_device": "auto" if target.device == "cuda" else "cpu",
        "export_legacy_format": False,
    }
    if recipe.model.revision:
        config["model_revision"] = recipe.model.revision
    if recipe.data.chat_template != TOKENIZER:
        config["template"] = known.llamafactory if known else recipe.data.chat_template
    return config


LLAMAFACTORY = LlamaFactory()
