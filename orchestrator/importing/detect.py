"""Whose configuration a file is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.backends.keys import load_keys

Kind = Literal[
    "axolotl", "llamafactory", "llamafactory-export", "llamafactory-inference",
    "llamafactory-predict", "llamafactory-evaluation", "llamafactory-v1", "llamafactory-megatron",
    "accelerate", "deepspeed", "dataset-info", "ray", "cloud", "recipe", "other",
]  # fmt: skip

V1 = {"train_dataset", "dist_config", "kernel_config", "peft_config", "sample_backend",
      "init_config", "model_class", "quant_config", "eval_dataset"}  # fmt: skip
MEGATRON = {"tensor_model_parallel_size", "pipeline_model_parallel_size", "sequence_parallel",
            "expert_model_parallel_size", "use_distributed_optimizer",
            "overlap_grad_reduce"}  # fmt: skip
LLAMAFACTORY_TRAINING = {"stage", "do_train", "dataset", "finetuning_type", "output_dir",
                         "tokenized_path", "num_train_epochs"}  # fmt: skip
RAY = {"cluster_name", "head_node_type", "available_node_types", "max_workers", "rayClusterConfig"}
CLOUD = {"provider", "gpu", "gpu_count", "dockerfile_commands", "resources", "node_count",
         "volumes", "secrets"}  # fmt: skip

DESCRIPTIONS: dict[Kind, tuple[str, str]] = {
    "axolotl": ("an axolotl training configuration", ""),
    "llamafactory": ("a LLaMA-Factory training configuration", ""),
    "llamafactory-export": (
        "a LLaMA-Factory export (merge) configuration",
        "a recipe merges and exports by itself; import the training configuration",
    ),
    "llamafactory-inference": (
        "a LLaMA-Factory inference configuration",
        "import the training configuration",
    ),
    "llamafactory-predict": (
        "a LLaMA-Factory prediction configuration",
        "it trains nothing (do_train is not true); import the training configuration",
    ),
    "llamafactory-evaluation": ("a LLaMA-Factory benchmark configuration", ""),
    "llamafactory-v1": (
        "a configuration of LLaMA-Factory's experimental v1 (USE_V1)",
        "ft drives the stable trainer; rewrite it with model_name_or_path, stage, dataset",
    ),
    "llamafactory-megatron": (
        "a configuration of LLaMA-Factory's Megatron trainer (USE_MCA)",
        "ft drives the stable trainer; remove the Megatron keys to import the rest",
    ),
    "accelerate": (
        "an accelerate configuration",
        "a recipe's `distributed` section takes its place (strategy, fsdp, gpus, nodes)",
    ),
    "deepspeed": (
        "a DeepSpeed configuration",
        "name it in a recipe: distributed: {strategy: deepspeed, deepspeed_file: PATH}",
    ),
    "dataset-info": (
        "LLaMA-Factory's list of data sets",
        "give it beside a training configuration: --dataset-info FILE",
    ),
    "ray": ("a Ray cluster configuration", "a recipe's distributed.ray_workers uses a cluster"),
    "cloud": ("a cloud launcher's configuration", "import the training configuration"),
    "recipe": ("a recipe of ft already", "ft recipe validate FILE"),
    "other": ("no configuration that ft knows", "ft imports axolotl and LLaMA-Factory training"),
}
"""What a kind is called, and what to do with a file of it."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The kind of a file; `training` says whether it can become a recipe."""

    kind: Kind

    @property
    def training(self) -> bool:
        """Whether it is a training configuration of a backend."""
        return self.kind in ("axolotl", "llamafactory")

    @property
    def label(self) -> str:
        """What to call it."""
        return DESCRIPTIONS[self.kind][0]

    @property
    def advice(self) -> str:
        """What to do with it instead."""
        return DESCRIPTIONS[self.kind][1]


def detect(value: Any) -> Detected:
    """The kind of a parsed file."""
    if not isinstance(value, Mapping):
        return Detected("other")
    keys = {str(key) for key, inner in value.items() if inner is not None}
    return Detected(_other_tools(value, keys) or _backend(value, keys))


def _other_tools(value: Mapping[str, Any], keys: set[str]) -> Kind | None:
    if {"model", "data", "training"} <= keys and isinstance(value["training"], Mapping):
        return "recipe"
    if "base_model" in keys or "model_name_or_path" in keys:
        return None
    if keys & {
        "zero_optimization",
        "train_micro_batch_size_per_gpu",
        "zero_allow_untested_optimizer",
    }:
        return "deepspeed"
    if keys & {"compute_environment", "distributed_type", "downcast_bf16", "rdzv_backend"}:
        return "accelerate"
    entries = [entry for entry in value.values() if isinstance(entry, Mapping)]
    named = {"file_name", "hf_hub_url", "ms_hub_url", "script_url", "cloud_file_name"}
    if entries and len(entries) == len(value) and any(named & set(entry) for entry in entries):
        return "dataset-info"
    if keys & RAY or ("apiVersion" in keys and "ray" in str(value["apiVersion"])):
        return "ray"
    return "cloud" if len(keys & CLOUD) >= 2 else None


def _backend(value: Mapping[str, Any], keys: set[str]) -> Kind:
    if keys & MEGATRON and "base_model" not in keys:
        return "llamafactory-megatron"
    if "model" in keys and keys & V1 and "model_name_or_path" not in keys:
        return "llamafactory-v1"
    if "base_model" in keys:
        return "axolotl"
    if "model_name_or_path" in keys:
        return _llamafactory(value, keys)
    shares = {}
    for backend in ("axolotl", "llamafactory"):
        shares[backend] = len(keys & set(load_keys(backend)["keys"]))
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= 5 and shares[best] * 2 > len(keys):
        return "axolotl" if best == "axolotl" else _llamafactory(value, keys)
    return "other"


def _llamafactory(value: Mapping[str, Any], keys: set[str]) -> Kind:
    if value.get("use_mca") is True:
        return "llamafactory-megatron"
    trains = value.get("do_train") is True
    if "export_dir" in keys and not trains:
        return "llamafactory-export"
    if "task" in keys and "task_dir" in keys:
        return "llamafactory-evaluation"
    if value.get("do_predict") is True and not trains:
        return "llamafactory-predict"
    if trains or keys & LLAMAFACTORY_TRAINING:
        return "llamafactory"
    return "llamafactory-inference"
