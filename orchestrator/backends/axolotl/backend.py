"""Axolotl as a backend: the files of a recipe, and what of it axolotl cannot do."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.backends import capabilities
from orchestrator.backends.axolotl.config import build, precision
from orchestrator.backends.base import Paths, Rendered, RenderedFile, Target
from orchestrator.backends.keys import load_keys
from orchestrator.distributed import deepspeed, fsdp
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from orchestrator.templates import ALPACA, TOKENIZER
from orchestrator.yaml_out import dump


class Axolotl:
    """See `backends.base.Backend`."""

    name = "axolotl"
    label = "Axolotl"

    def config(self, recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
        """The training configuration, as data."""
        return build(recipe, paths, target)

    def render(self, recipe: Recipe, paths: Paths, target: Target) -> Rendered:
        """`preprocess.yaml`, `train.yaml`, `merge.yaml`, `deepspeed.json`."""
        config = build(recipe, paths, target)
        files = [
            RenderedFile("preprocess.yaml", dump(_without_cluster(config))),
            RenderedFile("train.yaml", dump(config)),
        ]
        if recipe.adapter.type == "lora" and recipe.output.merge:
            files.append(RenderedFile("merge.yaml", dump(_merge(recipe, config, target))))
        files += deepspeed.rendered(recipe, paths, target)
        return Rendered(tuple(files), fsdp.variables(recipe))

    def tokenization(self, recipe: Recipe) -> Mapping[str, Any] | None:
        """Nothing: axolotl's own tokens are the measure."""
        return None

    def by_itself(self, recipe: Recipe) -> Iterator[Finding]:
        """What a run of ft puts right (see `probe/ftprobe/axolotl_pairs.py`)."""
        if recipe.training.stage == "dpo":
            yield Finding(
                "FT408",
                "note",
                "without ft, axolotl writes BOS twice in dpo if the tokenizer adds one",
                field="training.stage",
                fix="run it with ft",
            )

    def findings(self, recipe: Recipe) -> Iterator[Finding]:
        """What axolotl 0.19.0 cannot do, or does otherwise."""
        yield from capabilities.findings(recipe, self.name)
        stage, data = recipe.training.stage, recipe.data
        own = all(source.format == "custom" for source in data.sources)
        if stage in ("orpo", "reward") and not own:
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
        # rows without a chat have the prompt in them, whatever the template
        chats = any(source.format != "alpaca" for _, source in data.all_sources())
        if data.default_system and chats and data.chat_template != ALPACA:
            # what it would replace is in none of its templates any more, chatml included
            yield Finding(
                "FT401",
                "warning" if data.chat_template == "chatml" else "error",
                "axolotl has a default system prompt for instruction rows only",
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
            template = source.chat_template or data.chat_template
            told = template == TOKENIZER and not source.chat_template  # FT210 says it
            plain_rows = source.format == "alpaca" and not source.prompt
            if plain_rows and template != ALPACA and not told:
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
        names = tuple(load_keys(self.name).get("chat_templates", ()))
        return (*names, *(f"tokenizer_default_fallback_{name}" for name in names))

    def native_keys(self) -> Mapping[str, Any]:
        """Top-level keys of the configuration, plugin arguments included."""
        keys: Mapping[str, Any] = load_keys(self.name)["keys"]
        return keys


def _without_cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenizing takes one process and no tracker, and nothing that needs several."""
    apart = (
        "fp8",
        "fp8_config",
        "fp8_enable_fsdp_float8_all_gather",
        "fp32_norms",
        "fp32_norm_classes",
        "deepspeed",
        "deepcompile",
        "fsdp",
        "context_parallel_size",
        "tensor_parallel_size",
        "dp_shard_size",
        "dp_replicate_size",
        "use_ray",
        "ray_num_workers",
        "resources_per_worker",
        "hub_model_id",
        "use_mlflow",
        "use_comet",
        "use_trackio",
        "fsdp_version",
        "fsdp_config",
        "use_wandb",
        "wandb_project",
        "wandb_entity",
        "wandb_name",
        "use_tensorboard",
    )
    return {key: value for key, value in config.items() if key not in apart}


def _merge(recipe: Recipe, config: dict[str, Any], target: Target) -> dict[str, Any]:
    """The merge is into the unquantized base, tensor by tensor as peft does it.

    axolotl's default `memory_efficient` method rounds the base through NF4 first, embeddings
    included, and its result equals neither model (axolotl 0.19.0, measured).
    """
    merge = _without_cluster(config) | precision(recipe, target, settled=True)
    merge |= {"load_in_4bit": False, "load_in_8bit": False, "merge_method": "legacy"}
    for key in ("quantize_moe_experts", "ple_cpu_offload", "bnb_config_kwargs"):
        merge.pop(key, None)  # they need a quantized base
    merge["adapter"] = "lora"
    merge["lora_model_dir"] = config["output_dir"]
    return merge


AXOLOTL = Axolotl()
