"""What memory depends on in a recipe, apart from the model, the GPUs and the layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.backends.base import Target
from orchestrator.memory.model import Architecture, Matrix
from orchestrator.recipe.models import Recipe

Attention = Literal["eager", "sdpa", "flash"]
Loss = Literal["plain", "fused", "chunked", "in place"]
Checkpointing = Literal["none", "layers", "offload"]

PAIRS = ("dpo", "orpo", "reward")
"""Stages that compute two sequences per row, chosen and rejected."""
WITHOUT_REFERENCE = ("simpo", "orpo")
NOT_COVERED = ("ppo", "grpo", "gdpo", "ebft", "process_reward")


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA: rank, what it is put on, and what is trained in full beside it."""

    rank: int
    targets: tuple[str, ...] | str | None = None
    dora: bool = False
    dropout: bool = False
    saved: tuple[str, ...] = ()

    def on(self, matrix: Matrix) -> bool:
        """Whether it is put on this matrix. None, `all-linear`: all linear modules but lm_head."""
        if not matrix.module:
            return False
        if self.targets is None:
            return matrix.group != "lm_head"
        if isinstance(self.targets, str):
            paths = (f"{place}{matrix.name}" for place in _PLACES)
            return any(re.fullmatch(self.targets, path) for path in paths)
        return any(target.split(".")[-1] == matrix.name for target in self.targets)


_PLACES = ("", "model.layers.0.self_attn.", "model.layers.0.mlp.", "transformer.h.0.attn.",
           "model.language_model.layers.0.self_attn.", "model.language_model.layers.0.mlp.",
           "transformer.h.0.mlp.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What memory depends on in a recipe. Sizes of types are in bytes."""

    backend: str = "axolotl"
    micro_batch: int = 1
    sequence: int = 2048
    accumulation: int = 1
    compute: int = 2
    checkpointing: Checkpointing = "layers"
    attention: Attention = "sdpa"
    loss: Loss = "plain"
    quantization: Literal["none", "int8", "nf4"] = "none"
    double_quantization: bool = True
    quantized_experts: bool = False
    lora: Lora | None = None
    trained_share: float = 1.0
    optimizer: str = "adamw_torch"
    projection_rank: int = 0
    pure: bool = False
    sequences: int = 1
    reference: bool = False
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass on one GPU."""
        return self.micro_batch * self.sequences * self.sequence


def settings(recipe: Recipe, architecture: Architecture, target: Target) -> Settings:
    """The settings of a recipe for a model on a machine."""
    training, model = recipe.training, recipe.model
    notes: list[str] = []
    compute = {"float32": 4}.get(target.dtype(model.dtype), 2)
    if training.stage in NOT_COVERED:
        notes.append(f"{training.stage}: generation and further models are not counted")
    if training.offload_activations or training.offload_layers:
        notes.append("activation and layer offload of the backend are not counted")
    # of KTO's two, LLaMA-Factory computes the second beside the graph of the first, TRL before it
    beside = training.stage == "kto" and recipe.backend == "llamafactory"
    pairs = beside or training.stage in PAIRS
    lora = _lora(recipe)
    notes += _absent(lora, architecture)
    return Settings(
        backend=recipe.backend,
        micro_batch=training.micro_batch_size,
        sequence=recipe.data.sequence_length,
        accumulation=training.gradient_accumulation,
        compute=compute,
        checkpointing=_checkpointing(recipe),
        attention=_attention(model.attention),
        loss=_loss(recipe),
        quantization=model.quantization,
        double_quantization=model.double_quantization is not False,
        quantized_experts=bool(model.quantized_experts),
        lora=lora,
        trained_share=_share(recipe, architecture, notes),
        optimizer=_optimizer(recipe),
        projection_rank=_projection_rank(recipe),
        pure=bool(model.pure_bf16),
        sequences=2 if pairs else 1,
        reference=_reference(recipe),
        notes=tuple(notes),
    )


def _lora(recipe: Recipe) -> Lora | None:
    adapter = recipe.adapter
    if adapter.type != "lora":
        return None
    targets = adapter.targets
    every = targets in ("all-linear", None) or adapter.linear_too
    return Lora(
        rank=adapter.rank,
        targets=None if every else targets,
        dora=adapter.dora,
        dropout=adapter.dropout > 0,
        saved=adapter.modules_to_save,
    )


def _absent(lora: Lora | None, architecture: Architecture) -> list[str]:
    """A note on LoRA targets that a model of a known family does not have."""
    known = not any("is not known" in note for note in architecture.notes)
    if lora is None or not known or not isinstance(lora.targets, tuple):
        return []
    there = sorted({m.name for m in architecture.matrices if m.module})
    absent = [name for name in lora.targets if name.split(".")[-1] not in there]
    if not absent:
        return []
    return [f"no linear module of the model is called {', '.join(absent)}: it has "
            f"{', '.join(there)}"]  # fmt: skip


def _reference(recipe: Recipe) -> bool:
    """Whether a second model is loaded: one that is named, else only without a LoRA to turn off."""
    said = recipe.training.preference
    if recipe.training.stage not in ("dpo", "kto") or said.precomputed_reference:
        return False
    if recipe.training.stage == "dpo" and said.loss in WITHOUT_REFERENCE:
        return False
    return recipe.adapter.type != "lora" or said.reference_model is not None


def _checkpointing(recipe: Recipe) -> Checkpointing:
    value, spread = recipe.training.gradient_checkpointing, recipe.distributed
    if value in ("offload", "offload_disk", "unsloth"):
        return "offload"
    by_fsdp = spread.strategy == "fsdp" and spread.fsdp and spread.fsdp.checkpoint_activations
    return "layers" if value or by_fsdp else "none"


def _attention(name: str) -> Attention:
    if name == "eager":
        return "eager"
    return "sdpa" if name in ("sdpa", "auto") else "flash"


def _loss(recipe: Recipe) -> Loss:
    """Which loss kernel is used; LLaMA-Factory's one switch turns Liger's fused one on."""
    kernels = recipe.kernels
    cut = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin" in kernels.plugins
    if kernels.cut_cross_entropy or cut or kernels.unsloth:
        return "fused"
    parts: tuple[str, ...] = kernels.liger if isinstance(kernels.liger, tuple) else ()
    if kernels.liger is True or "fused_cross_entropy" in parts:
        return "chunked"
    if "cross_entropy" in parts:
        return "in place"
    return "plain"


def _share(recipe: Recipe, architecture: Architecture, notes: list[str]) -> float:
    """Share of the weights that is trained without a LoRA."""
    adapter = recipe.adapter
    if adapter.type == "freeze":
        layers = abs(adapter.trainable_layers or 2)
        return min(1.0, layers / architecture.layers)
    if adapter.type == "oft":
        notes.append("OFT is counted as a LoRA-like share of 1 % of the weights")
        return 0.01
    if adapter.trainable_parameters:
        notes.append("adapter.trainable_parameters is not looked at: all weights count as trained")
    return 1.0


def _optimizer(recipe: Recipe) -> str:
    training = recipe.training
    for name, section in (("galore_adamw", training.galore), ("apollo_adamw", training.apollo)):
        if section is not None and section.enabled:
            return name
    return training.optimizer


def _projection_rank(recipe: Recipe) -> int:
    """Rank of GaLore's and APOLLO's projection; 128 and 16 are LLaMA-Factory's defaults."""
    training = recipe.training
    if training.galore and training.galore.enabled:
        return training.galore.rank or 16
    if training.apollo and training.apollo.enabled:
        return training.apollo.rank or 16
    options: Any = training.optimizer_options
    if isinstance(options, Mapping) and str(options.get("rank", "")).isdigit():
        return int(options["rank"])
    match = re.search(r"rank\s*=\s*(\d+)", options) if isinstance(options, str) else None
    return int(match[1]) if match else 128
