"""Which weights are trained."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.recipe.sections.base import (
    Ints,
    Options,
    Positive,
    PositiveFloat,
    Real,
    Section,
    Text,
    Texts,
)


class Adapter(Section):
    """A LoRA on the frozen base, a part of the weights, or none for a full fine-tune."""

    type: Literal["none", "lora", "freeze", "oft"] = Field(
        "none", description="none (all weights), lora, freeze (some layers) or oft"
    )
    rank: Positive = Field(16, description="rank of the update")
    alpha: PositiveFloat = Field(32, description="scale of the update, times 1/rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the LoRA")
    targets: Literal["all-linear"] | Text | Texts | None = Field(
        "all-linear",
        description="all-linear, a list of module names, or a regular expression over them",
    )
    linear_too: bool | None = Field(None, description="every linear layer beside those listed")
    modules_to_save: Texts = Field((), description="modules trained in full beside the LoRA")
    dora: bool = Field(False, description="weight-decomposed LoRA")
    rslora: bool = Field(False, description="scale by 1/sqrt(rank)")
    loraplus_ratio: PositiveFloat | None = Field(None, description="LoRA+ learning rate ratio")
    init: bool | Text | None = Field(
        None, description="how it begins: pissa, pissa_niter_16, gaussian, olora, ..."
    )
    target_parameters: Text | Texts | None = Field(
        None, description="parameters (not modules) that get a LoRA"
    )
    layers: Ints | None = Field(None, description="layers that get a LoRA")
    layers_pattern: Texts | None = Field(None, description="name of the list of layers")
    rank_pattern: Options | None = Field(None, description="other ranks by module")
    alpha_pattern: Options | None = Field(None, description="other alphas by module")
    fan_in_fan_out: bool | None = Field(None, description="weights are stored transposed (GPT-2)")
    autocast: bool | None = Field(None, description="hold the LoRA in float32")
    trainable_tokens: Ints | Options | None = Field(
        None, description="tokens whose embeddings are trained"
    )
    tie_weights: bool | None = Field(None, description="keep tied weights tied")
    on_cpu: bool | None = Field(None, description="load the LoRA on the CPU")
    convert_pissa: bool | None = Field(
        None, description="turn a PiSSA LoRA into a usual one at the end"
    )
    loftq_bits: Positive | None = Field(None, description="LoftQ: bits of the base")
    loraplus_embedding_rate: PositiveFloat | None = Field(
        None, description="LoRA+: learning rate of the embeddings"
    )
    continue_from: Text | None = Field(None, description="go on with this LoRA")
    new_adapter: bool | None = Field(None, description="add a new LoRA to those")
    trainable_parameters: Texts | None = Field(
        None, description="train only parameters that match (regular expressions)"
    )
    trainable_layers: int | None = Field(None, description="freeze: number of layers to train")
    trainable_modules: Texts | None = Field(None, description="freeze: modules to train")
    extra_modules: Texts | None = Field(None, description="freeze: further modules to train")
    llama_pro: bool | None = Field(None, description="train only added blocks")
    freeze_vision: bool | None = Field(None, description="leave the vision part as it is")
    freeze_projector: bool | None = Field(None, description="leave the projector as it is")
    freeze_language: bool | None = Field(None, description="leave the language model as it is")
    freeze_multimodal: bool | None = Field(
        None, description="leave all but the language model as it is"
    )
    oft_rank: int | None = Field(None, description="OFT: rank")
    oft_block_size: int | None = Field(None, description="OFT: block size")
    oft_targets: Texts | None = Field(None, description="OFT: modules")
    module_dropout: Real | None = Field(None, description="OFT: dropout")
    lisa_layers: Positive | None = Field(None, description="LISA: layers trained at a time")
    lisa_interval: Positive | None = Field(None, description="LISA: steps between two choices")
    lisa_attribute: Text | None = Field(None, description="LISA: where the layers are")
    relora: bool | None = Field(None, description="ReLoRA")
    relora_prune: Real | None = Field(None, description="ReLoRA: share of optimizer state to drop")
    restart_steps: Positive | None = Field(
        None, description="steps between two restarts of the learning rate"
    )
    restart_warmup: Positive | None = Field(None, description="warm-up after a restart")
    restart_anneal: Positive | None = Field(None, description="annealing before a restart")
