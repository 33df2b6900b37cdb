"""Names of optimizers and schedules, and the settings of the unusual ones."""

from pydantic import Field

from orchestrator.recipe.sections.base import (
    Positive,
    Real,
    Section,
    Text,
    Texts,
)

HUGGING_FACE = (
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused",
    "adamw_apex_fused", "adafactor", "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit",
    "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit",
    "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb",
    "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit",
    "galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_radam",
    "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise",
    "stable_adamw",
)  # fmt: skip
"""Optimizers of transformers' trainer: both backends have them."""

Optimizer = Text
Scheduler = Text
SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
    "warmup_stable_decay", "greedy",
)  # fmt: skip
"""Schedules of transformers' trainer: both backends have them."""


class Galore(Section):
    """GaLore: optimizer states of projected gradients."""

    enabled: bool | None = Field(None, description="GaLore")
    layerwise: bool | None = Field(None, description="update layer by layer")
    rank: Positive | None = Field(None, description="rank of the projection")
    targets: Texts | None = Field(None, description="modules")
    scale: Real | None = Field(None, description="scale of the projection")
    interval: Positive | None = Field(None, description="steps between projections")
    projection: Text | None = Field(None, description="kind of projection")


class Apollo(Section):
    """APOLLO: learning rates from projected gradients."""

    enabled: bool | None = Field(None, description="APOLLO")
    layerwise: bool | None = Field(None, description="update layer by layer")
    rank: Positive | None = Field(None, description="rank of the projection")
    targets: Texts | None = Field(None, description="modules")
    scale: Real | None = Field(None, description="scale of the projection")
    scale_by: Text | None = Field(None, description="channel or tensor")
    scale_front: bool | None = Field(None, description="scale before the norm limiter")
    interval: Positive | None = Field(None, description="steps between projections")
    projection: Text | None = Field(None, description="random or svd")
    projection_side: Text | None = Field(None, description="std, right or left")


class Qat(Section):
    """Training with the rounding of a later quantization."""

    weights: Text | None = Field(None, description="type of the weights")
    activations: Text | None = Field(None, description="type of the activations")
    group_size: Positive | None = Field(None, description="weights that share a scale")
    embeddings: bool | None = Field(None, description="quantize the embeddings too")
    after_steps: Positive | None = Field(None, description="begin after so many steps")


class Badam(Section):
    """BAdam: one block of layers at a time."""

    enabled: bool | None = Field(None, description="BAdam")
    mode: Text | None = Field(None, description="layer or ratio")
    start: int | None = Field(None, description="first block")
    switch: Text | None = Field(None, description="order of the blocks")
    interval: Positive | None = Field(None, description="steps per block")
    ratio: Real | None = Field(None, description="share of the parameters")
    mask: Text | None = Field(None, description="adjacent or scatter")
    verbose: int | None = Field(None, description="how much is printed")
