"""The base model: where it is, how it is loaded, its tokens and its fast kernels."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from orchestrator.recipe.sections.base import (
    Ints,
    Options,
    Positive,
    Real,
    Section,
    Text,
    Texts,
)

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Family = Literal["mistral", "llama2", "llama3", "qwen2", "qwen3", "gemma", "phi3"]
LigerPart = Literal[
    "rope",
    "rms_norm",
    "rms_norm_gated",
    "glu",
    "layer_norm",
    "cross_entropy",
    "fused_cross_entropy",
]


class Model(Section):
    """The base model and how it is loaded."""

    base: Text = Field(description="hub id or folder of the base model")
    revision: Text | None = Field(None, description="branch, tag or commit on the hub")
    family: Family | None = Field(
        None, description="architecture family; only --smoke needs it, and only if it cannot tell"
    )
    quantization: Quantization = Field(
        "none", description="how the frozen base is held in memory; nf4 with a LoRA is QLoRA"
    )
    double_quantization: bool | None = Field(None, description="nf4: quantize its scales too")
    attention: Text = Field(
        "sdpa",
        description="auto, eager, sdpa, flash_attention_2, flash_attention_3, or axolotl's "
        "flex_attention, xformers, sage, ... or a kernel of the hub",
    )
    dtype: Dtype = Field(
        "auto", description="computation type; auto is bfloat16 on a GPU that has it, else float32"
    )
    tf32: bool | Literal["auto"] = Field(
        "auto", description="multiply float32 matrices in TF32; auto is the backend's own choice"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    tokenizer: Text | None = Field(
        None, description="tokenizer of another model; default: the base's own"
    )
    tokenizer_class: Text | None = Field(None, description="class of the tokenizer")
    model_class: Text | None = Field(None, description="class that the model is loaded with")
    processor_class: Text | None = Field(
        None, description="class of the processor of a multimodal model"
    )
    config_from: Text | None = Field(None, description="take the model's config from here")
    fast_tokenizer: bool | None = Field(None, description="use the fast tokenizer")
    legacy_tokenizer: bool | None = Field(
        None, description="the legacy behaviour of Llama tokenizers"
    )
    mistral_tokenizer: bool | None = Field(None, description="tokenize with mistral-common")
    split_special_tokens: bool | None = Field(None, description="split special tokens in texts")
    config_overrides: Options | None = Field(
        None, description="values to change in the model's config"
    )
    load_options: Options | None = Field(None, description="further arguments of from_pretrained")
    rope_scaling: Text | None = Field(None, description="linear, dynamic, yarn or llama3")
    moe_aux_loss: Real | None = Field(None, description="weight of the experts' balance loss")
    from_scratch: bool | None = Field(None, description="start from random weights")
    low_memory_loading: bool | None = Field(None, description="load with little host memory")
    device_map: Text | Options | None = Field(None, description="where the layers are put")
    cache_folder: Text | None = Field(None, description="folder of downloaded models")
    quantized_experts: bool | None = Field(None, description="quantize the experts too")
    quantized_checkpoint: bool | None = Field(None, description="the base is a GPTQ checkpoint")
    checkpoint_quantization: Text | None = Field(
        None, description="how the checkpoint is quantized"
    )
    checkpoint_quantization_options: Options | None = Field(None, description="its options")
    bnb_options: Options | None = Field(None, description="further arguments of bitsandbytes")
    bnb_backend: Text | None = Field(None, description="library that quantizes the base")
    labels: Positive | None = Field(None, description="outputs of a classification head")
    experts: Text | None = Field(None, description="implementation of the experts")
    mixture_of_depths: Text | None = Field(None, description="convert or load")
    like_llama: bool | None = Field(None, description="treat the model as a Llama")
    like_mistral: bool | None = Field(None, description="treat the model as a Mistral")
    like_qwen: bool | None = Field(None, description="treat the model as a Qwen")
    like_falcon: bool | None = Field(None, description="treat the model as a Falcon")
    float8: bool | None = Field(None, description="compute in float8")
    float8_backend: Text | None = Field(None, description="library for float8")
    float8_all_gather: bool | None = Field(None, description="send float8 weights between GPUs")
    float8_recipe: Text | None = Field(None, description="scaling of float8")
    pure_bf16: bool | None = Field(None, description="hold trained weights in bfloat16 too")
    upcast_norms: bool | None = Field(None, description="compute layer norms in float32")
    upcast_output: bool | None = Field(None, description="compute the output layer in float32")
    shifted_attention: bool | None = Field(None, description="LongLoRA's shifted sparse attention")
    inference_dtype: Text | None = Field(None, description="computation type of inference")


class Tokens(Section):
    """Special and added tokens."""

    bos: Text | None = Field(None, description="the token that begins a text")
    eos: Text | None = Field(None, description="the token that ends a text")
    pad: Text | None = Field(None, description="the padding token")
    unk: Text | None = Field(None, description="the token for what is unknown")
    additional: Texts | None = Field(None, description="further special tokens")
    add: Texts | None = Field(None, description="tokens to add to the vocabulary")
    add_special: Texts | None = Field(None, description="special tokens to add to the vocabulary")
    replace: Options | None = Field(None, description="reserved tokens by id and their new text")
    resize: bool | None = Field(None, description="make room for new tokens in the embeddings")
    resize_to_32: bool | None = Field(
        None, description="round the embeddings up to a multiple of 32"
    )
    shrink: bool | None = Field(
        None, description="make the embeddings smaller where they are too large"
    )
    mean_resize: bool | None = Field(
        None, description="begin new embeddings with the mean of the others"
    )
    new_tokens_file: Text | None = Field(
        None, description="file with new tokens and their descriptions"
    )
    initialization: Text | None = Field(None, description="how the embeddings of new tokens begin")
    untrained: int | Ints | None = Field(
        None, description="tokens whose embeddings were never trained"
    )


class Kernels(Section):
    """Faster or smaller implementations of parts of the model."""

    liger: bool | Annotated[tuple[LigerPart, ...], Strict(False)] | None = Field(
        None, description="Liger kernels: true for the usual ones, or a list of parts"
    )
    cut_cross_entropy: bool | None = Field(None, description="cross entropy without logits")
    plugins: Texts = Field((), description="further plugins by the backend's own names")
    lora_mlp: bool | None = Field(None, description="fused LoRA kernel of the MLP")
    lora_qkv: bool | None = Field(None, description="fused LoRA kernel of the attention inputs")
    lora_out: bool | None = Field(None, description="fused LoRA kernel of the attention output")
    lora_embedding: bool | None = Field(None, description="fused LoRA kernel of the embeddings")
    fused_attention: bool | None = Field(None, description="fused attention kernel")
    flash_mlp: bool | None = Field(None, description="flash attention's fused MLP")
    flash_cross_entropy: bool | None = Field(None, description="flash attention's cross entropy")
    flex_options: Options | None = Field(None, description="how flex attention is compiled")
    gemma4_hybrid: bool | None = Field(None, description="Gemma 4: flash attention beside SDPA")
    hub_kernels: bool | None = Field(None, description="kernels from the hub")
    scattermoe: bool | None = Field(None, description="ScatterMoE for the experts")
    sonicmoe: bool | None = Field(None, description="SonicMoE for the experts")
    tiled_mlp: bool | None = Field(None, description="compute the MLP in tiles")
    tiled_mlp_shards: Positive | None = Field(None, description="number of tiles")
    tiled_mlp_original: bool | None = Field(None, description="tiles of the model's own MLP")
    chunked_cross_entropy: bool | None = Field(None, description="cross entropy in chunks")
    linear_experts: bool | None = Field(None, description="Llama 4: experts as linear layers")
    triton_kernels: bool | None = Field(None, description="LLaMA-Factory's own kernels")
    unsloth: bool | None = Field(None, description="Unsloth's optimized training")
    ktransformers: bool | None = Field(None, description="KTransformers' CPU experts")
    ktransformers_weights: Text | None = Field(None, description="KTransformers' expert weights")
