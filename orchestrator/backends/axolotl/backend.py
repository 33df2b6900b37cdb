"""A recipe as axolotl configuration.

Every setting whose default differs from LLaMA-Factory's is written out, so that a recipe means the
same on both and an upgrade cannot move it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator import distributed
from orchestrator.backends.axolotl.data import dataset
from orchestrator.backends.base import Paths, Rendered, RenderedFile, Target, merged_native
from orchestrator.backends.keys import load_keys
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER
from orchestrator.yaml_out import dump

RL = {"dpo": "dpo", "orpo": "orpo", "kto": "kto"}


class Axolotl:
    """See `backends.base.Backend`."""

    name = "axolotl"
    label = "Axolotl"

    def render(self, recipe: Recipe, paths: Paths, target: Target) -> Rendered:
        """`preprocess.yaml`, `train.yaml`, `merge.yaml`, `deepspeed.json`."""
        config = {
            **_model(recipe, paths, target),
            **_adapter(recipe, target),
            **_data(recipe, paths),
            **_training(recipe),
            **_distributed(recipe, paths),
            **_tracking(recipe),
            "output_dir": paths.training,
        }
        config = merged_native(config, recipe.native.axolotl)
        files = [
            RenderedFile("preprocess.yaml", dump(_without_cluster(config))),
            RenderedFile("train.yaml", dump(config)),
        ]
        if recipe.adapter.type == "lora" and recipe.output.merge:
            files.append(RenderedFile("merge.yaml", dump(_merge(config, target))))
        if recipe.distributed.strategy == "deepspeed":
            document = distributed.for_recipe(
                recipe, target.dtype(recipe.model.dtype), cpu=target.device == "cpu"
            )
            files.append(RenderedFile("deepspeed.json", distributed.as_text(document)))
        return Rendered(tuple(files))

    def findings(self, recipe: Recipe) -> Iterator[Finding]:
        """What axolotl 0.19.0 cannot do, or does otherwise."""
        stage, data = recipe.training.stage, recipe.data
        if stage in ("orpo", "reward"):
            yield Finding(
                "FT401",
                "error",
                f"axolotl needs rows of another shape for {stage}",
                field="training.stage",
                fix="--backend llamafactory",
            )
        if data.train_on == "last_assistant":
            yield Finding(
                "FT401",
                "error",
                "axolotl can train the last turn only through a column that marks it",
                field="data.train_on",
                fix="--backend llamafactory",
            )
        plain = data.chat_template in ("chatml", ALPACA)
        if data.default_system and not plain:
            yield Finding(
                "FT401",
                "error",
                "axolotl has a default system prompt only with the templates chatml and alpaca",
                field="data.default_system",
                fix="write it into the rows, or --backend llamafactory",
            )
        for field, source in data.all_sources():
            if source.format == "kto":
                yield Finding(
                    "FT402",
                    "error",
                    "axolotl does not put kto rows into a chat template",
                    field=f"{field}.format",
                    fix="--backend llamafactory",
                )
            if source.subset and stage in ("dpo", "kto"):
                yield Finding(
                    "FT403",
                    "error",
                    f"axolotl ignores the subset of {stage} data",
                    field=f"{field}.subset",
                    fix="--backend llamafactory, or download that subset and name the file",
                )
            if source.format == "alpaca" and data.chat_template != ALPACA:
                yield Finding(
                    "FT402",
                    "error",
                    "axolotl does not put instruction rows into a chat template",
                    field="data.chat_template",
                    fix="chat_template: alpaca, or data as messages",
                )
            renamed = {"role", "content"} & set(source.columns)
            if source.format == "preference" and (renamed or source.roles):
                yield Finding(
                    "FT403",
                    "error",
                    "axolotl drops renamed roles and message keys of preference data",
                    field=f"{field}.columns",
                    fix="rename them in the data to role and content",
                )
            if source.columns.get("history"):
                yield Finding(
                    "FT401",
                    "error",
                    "axolotl has no history column",
                    field=f"{field}.columns.history",
                    fix="--backend llamafactory, or data as messages",
                )
        if stage not in ("pretrain", "sft") and data.packing:
            yield Finding(
                "FT404",
                "error",
                f"axolotl cannot pack {stage} data",
                field="data.packing",
                fix="packing: false",
            )
        if stage not in ("pretrain", "sft") and recipe.training.early_stopping:
            yield Finding(
                "FT404",
                "error",
                f"axolotl ignores early stopping in {stage}",
                field="training.early_stopping",
            )
        loss = recipe.training.preference.loss
        if stage == "dpo" and loss == "simpo" and recipe.training.warmup_ratio:
            yield Finding(
                "FT404",
                "error",
                "axolotl refuses warmup_ratio with SimPO",
                field="training.warmup_ratio",
                fix="use warmup_steps",
            )

    def template_names(self) -> tuple[str, ...]:
        """Names that `chat_template` accepts."""
        return tuple(load_keys(self.name).get("chat_templates", ()))

    def native_keys(self) -> Mapping[str, Any]:
        """Top-level keys of the configuration, plugin arguments included."""
        keys: Mapping[str, Any] = load_keys(self.name)["keys"]
        return keys


def _model(recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
    model = recipe.model
    dtype = target.dtype(model.dtype)
    config: dict[str, Any] = {"base_model": paths.base or model.base}
    if model.revision:
        config["revision_of_model"] = model.revision
    config["trust_remote_code"] = model.trust_remote_code
    if model.attention != "auto":
        config["attn_implementation"] = model.attention
    config |= {
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "tf32": dtype == "bfloat16",
    }
    return config


def _adapter(recipe: Recipe, target: Target) -> dict[str, Any]:
    adapter, quantization = recipe.adapter, recipe.model.quantization
    if adapter.type == "none":
        return {}
    config: dict[str, Any] = {
        "adapter": "qlora" if quantization == "nf4" else "lora",
        "load_in_4bit": quantization == "nf4",
        "load_in_8bit": quantization == "int8",
        "lora_r": adapter.rank,
        "lora_alpha": _whole(adapter.alpha),
        "lora_dropout": adapter.dropout,
    }
    if adapter.targets == "all-linear":
        config["lora_target_linear"] = True
    else:
        config["lora_target_modules"] = list(adapter.targets)
    if adapter.modules_to_save:
        config["lora_modules_to_save"] = list(adapter.modules_to_save)
    if adapter.dora:
        config["peft_use_dora"] = True
    if adapter.rslora:
        config["peft_use_rslora"] = True
    if adapter.loraplus_ratio:
        config["loraplus_lr_ratio"] = adapter.loraplus_ratio
    if target.device == "cpu":
        # chosen by themselves otherwise; they are Triton kernels and die without a GPU
        config |= {"lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False}
    return config


def _data(recipe: Recipe, paths: Paths) -> dict[str, Any]:
    data = recipe.data
    where = paths.sources or tuple(source.path for source in data.sources)
    config: dict[str, Any] = {
        "datasets": [dataset(recipe, s, path) for s, path in zip(data.sources, where, strict=True)],
    }
    if data.validation_sources:
        others = paths.validation_sources or tuple(s.path for s in data.validation_sources)
        config["test_datasets"] = [
            dataset(recipe, s, path)
            for s, path in zip(data.validation_sources, others, strict=True)
        ]
    else:
        config["val_set_size"] = _whole(data.validation)
    config |= {
        "dataset_prepared_path": paths.prepared,
        "sequence_len": data.sequence_length,
        "sample_packing": data.packing,
    }
    if recipe.training.stage in ("pretrain", "sft"):
        strategies = {"drop": "drop", "backend": "drop", "truncate": "truncate", "error": "raise"}
        config["excess_length_strategy"] = strategies[data.overlong]
        config["train_on_inputs"] = data.train_on == "all"
    if data.packing:
        config |= {"eval_sample_packing": False, "pad_to_sequence_len": True}
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
        if any(s.format in ("messages", "sharegpt", "preference") for s in data.sources):
            config["chat_template"] = "tokenizer_default"
    elif name != ALPACA:
        config["chat_template"] = known.axolotl if known else name
    stops = data.stop_tokens or ((known.stop,) if known and known.stop else ())
    if stops and recipe.training.stage == "sft":
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
        **_warmup(recipe),
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
    }
    if training.gradient_checkpointing:
        config["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if training.neftune_alpha:
        config["neftune_noise_alpha"] = training.neftune_alpha
    config |= {"seed": training.seed, "logging_steps": training.log_every, **_saving(recipe)}
    return config | _preference(recipe)


def _warmup(recipe: Recipe) -> dict[str, Any]:
    """axolotl takes one of the two, and warms up by itself if it gets neither."""
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
            "early_stopping_patience": training.early_stopping,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return config


def _preference(recipe: Recipe) -> dict[str, Any]:
    stage, preference = recipe.training.stage, recipe.training.preference
    if stage not in RL:
        return {}
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
        return {"deepspeed": f"{paths.rendered}/deepspeed.json"}
    if spread.strategy == "fsdp":
        return {
            "fsdp_version": 2,
            "fsdp_config": {
                "offload_params": spread.offload != "none",
                "cpu_ram_efficient_loading": recipe.model.quantization != "nf4",
                "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "state_dict_type": "FULL_STATE_DICT",
                "reshard_after_forward": True,
            },
        }
    return {}


def _tracking(recipe: Recipe) -> dict[str, Any]:
    tracking = recipe.tracking
    if tracking.type == "wandb":
        config = {"use_wandb": True, "wandb_project": tracking.project or recipe.name}
        if tracking.entity:
            config["wandb_entity"] = tracking.entity
        if tracking.run_name:
            config["wandb_name"] = tracking.run_name
        return config
    return {"use_tensorboard": True} if tracking.type == "tensorboard" else {}


def _without_cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenizing takes one process and no tracker."""
    apart = (
        "deepspeed",
        "fsdp_version",
        "fsdp_config",
        "use_wandb",
        "wandb_project",
        "wandb_entity",
        "wandb_name",
        "use_tensorboard",
    )
    return {key: value for key, value in config.items() if key not in apart}


def _merge(config: dict[str, Any], target: Target) -> dict[str, Any]:
    """The merge is into the unquantized base, tensor by tensor as peft does it.

    axolotl's default `memory_efficient` method rounds the base through NF4 first, embeddings
    included, and its result equals neither model (axolotl 0.19.0, measured).
    """
    merge = _without_cluster(config)
    merge |= {"load_in_4bit": False, "load_in_8bit": False, "merge_method": "legacy"}
    merge["adapter"] = "lora"
    merge["lora_model_dir"] = config["output_dir"]
    return merge


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


AXOLOTL = Axolotl()
