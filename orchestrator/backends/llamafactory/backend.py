"""LLaMA-Factory as a backend: the files of a recipe, and what of it it cannot do."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.backends import capabilities
from orchestrator.backends.base import Paths, Rendered, RenderedFile, Target
from orchestrator.backends.keys import load_keys
from orchestrator.backends.llamafactory import common
from orchestrator.backends.llamafactory.config import build
from orchestrator.backends.llamafactory.data import dataset_info, registered
from orchestrator.distributed import deepspeed, fsdp
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from orchestrator.templates import TEMPLATES, TOKENIZER
from orchestrator.yaml_out import dump


class LlamaFactory:
    """See `backends.base.Backend`."""

    name = "llamafactory"
    label = "LLaMA-Factory"

    def config(self, recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
        """The training configuration, as data."""
        data = recipe.data
        return build(recipe, paths, target, len(data.sources), len(data.validation_sources))

    def render(self, recipe: Recipe, paths: Paths, target: Target) -> Rendered:
        """`preprocess.yaml`, `train.yaml`, `merge.yaml`, `dataset_info.json`, `deepspeed.json`."""
        train = list(paths.sources or (source.path for source in recipe.data.sources))
        validation = list(
            paths.validation_sources or (source.path for source in recipe.data.validation_sources)
        )
        config = build(recipe, paths, target, len(train), len(validation))
        files = [
            RenderedFile("preprocess.yaml", dump(_without_cluster(config))),
            RenderedFile("train.yaml", dump(config)),
        ]
        if not registered(recipe):
            info = json.dumps(dataset_info(recipe, train, validation), indent=2, ensure_ascii=False)
            files.append(RenderedFile("dataset_info.json", info + "\n"))
        if recipe.adapter.type == "lora" and recipe.output.merge:
            files.append(RenderedFile("merge.yaml", dump(_merge(recipe, paths, target))))
        files += deepspeed.rendered(recipe, paths, target)
        if recipe.distributed.strategy == "fsdp":
            dtype = target.dtype(recipe.model.dtype)
            launch = fsdp.accelerate_config(recipe, target.processes, dtype)
            files.append(RenderedFile("accelerate.yaml", dump(launch)))
        variables = fsdp.variables(recipe)
        if recipe.tracking.type == "wandb":
            variables["WANDB_PROJECT"] = recipe.tracking.project or recipe.name
            if recipe.tracking.entity:
                variables["WANDB_ENTITY"] = recipe.tracking.entity
        return Rendered(tuple(files), variables)

    def tokenization(self, recipe: Recipe) -> Mapping[str, Any] | None:
        """See `common`."""
        return common.options(recipe)

    def by_itself(self, recipe: Recipe) -> Iterator[Finding]:
        """See `common`."""
        yield from common.alone(recipe)

    def findings(self, recipe: Recipe) -> Iterator[Finding]:
        """What llamafactory 0.9.5 cannot do, or does otherwise."""
        yield from capabilities.findings(recipe, self.name)
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


def _without_cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenizing takes one process and no tracker."""
    apart = (
        "deepspeed", "fsdp", "fsdp_config", "run_name", "ray_num_workers", "ray_init_kwargs",
        "use_swanlab", "push_to_hub", "hub_model_id",
    )  # fmt: skip
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
