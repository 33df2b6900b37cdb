"""Gradient checkpointing that works with the way the weights are spread."""

from collections.abc import Mapping
from typing import Any

from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

FIELD = "training.reentrant"


def settled(recipe: Recipe, own: Mapping[str, Any] | None = None) -> tuple[Recipe, list[Finding]]:
    """The recipe with reentrant checkpointing where ZeRO-3 needs it; `own` is a DeepSpeed file."""
    training = recipe.training
    if not breaks(recipe, own):
        return recipe, []
    if "reentrant" in training.model_fields_set:
        text = "ZeRO stage 3 with frozen weights needs reentrant checkpointing"
        fix = "remove it, or use ZeRO stage 2"
        return recipe, [Finding("FT215", "error", text, field=FIELD, fix=fix)]
    text = "reentrant: true, which ZeRO stage 3 with frozen weights needs"
    changed = training.model_copy(update={"reentrant": True})
    return recipe.model_copy(update={"training": changed}), [
        Finding("FT215", "note", text, field="distributed.zero_stage")
    ]


def breaks(recipe: Recipe, own: Mapping[str, Any] | None = None) -> bool:
    """Whether training would fail at its first step.

    With frozen weights, which a LoRA has, recomputing layers in torch's newer way meets weights
    that stage 3 has taken away again: "Recomputed values for the following tensors have different
    metadata". Seen with both backends (torch 2.13, DeepSpeed 0.18.4 and 0.18.6); all weights
    trained, or the older way, work.
    """
    spread, training = recipe.distributed, recipe.training
    zero = (own or {}).get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, Mapping) else spread.zero_stage
    return (
        spread.strategy == "deepspeed"
        and stage == 3
        and recipe.adapter.type == "lora"
        and training.gradient_checkpointing is True
        and training.reentrant is False
    )
