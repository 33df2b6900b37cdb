"""What each model family is built of: matrices, norms, embeddings.

Names and shapes are those of `transformers/models/<family>/modeling_<family>.py`, release 5.16.1;
`DEFAULTS` are the values of its configuration classes that published configs leave out.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.memory import unknown
from orchestrator.memory.model import Architecture, Attention, Mlp, Norms
from orchestrator.memory.shape import QKVO, Shape

Config = Mapping[str, Any]

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    "mistral": {"tie_word_embeddings": False, "num_key_value_heads": 8},
    "mixtral": {"tie_word_embeddings": False, "num_key_value_heads": 8, "num_local_experts": 8,
                "num_experts_per_tok": 2},
    "qwen2": {"tie_word_embeddings": False, "num_key_value_heads": 32},
    "qwen2_moe": {"tie_word_embeddings": False, "decoder_sparse_step": 1, "qkv_bias": True,
                  "mlp_only_layers": [], "num_experts_per_tok": 4, "num_experts": 60,
                  "shared_expert_intermediate_size": 5632, "moe_intermediate_size": 1408},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 128, "attention_bias": False},
    "qwen3_moe": {"tie_word_embeddings": False, "head_dim": None, "attention_bias": False,
                  "num_key_value_heads": 4, "decoder_sparse_step": 1, "mlp_only_layers": [],
                  "num_experts_per_tok": 8, "num_experts": 128, "moe_intermediate_size": 768},
    "gemma": {"vocab_size": 256000, "tie_word_embeddings": True, "head_dim": 256,
              "attention_bias": False},
    "gemma2": {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
               "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
               "head_dim": 256, "tie_word_embeddings": True, "attention_bias": False,
               "final_logit_softcapping": 30.0},
    "gemma3_text": {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
                    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
                    "head_dim": 256, "tie_word_embeddings": True, "attention_bias": False},
    "phi": {"tie_word_embeddings": False, "qk_layernorm": False},
    "phi3": {"tie_word_embeddings": False},
    "gpt2": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
             "tie_word_embeddings": True},
    "gpt_neox": {"tie_word_embeddings": False, "attention_bias": True,
                 "use_parallel_residual": True},
    "falcon": {"tie_word_embeddings": True, "multi_query": True, "parallel_attn": True,
               "bias": False, "new_decoder_architecture": False, "alibi": False},
    "opt": {"tie_word_embeddings": True, "do_layer_norm_before": True, "enable_bias": True,
            "layer_norm_elementwise_affine": True, "_remove_final_layer_norm": False},
    "deepseek_v2": {"tie_word_embeddings": False, "attention_bias": False, "q_lora_rank": 1536,
                    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
                    "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2,
                    "first_k_dense_replace": 0, "num_experts_per_tok": 6},
    "deepseek_v3": {"tie_word_embeddings": False, "attention_bias": False, "q_lora_rank": 1536,
                    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
                    "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1,
                    "first_k_dense_replace": 3, "num_experts_per_tok": 8},
}  # fmt: skip
"""Values that published configs leave out, by family."""

SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "llama": (32000, 4096, 11008, 32, 32, 32),
    "mistral": (32000, 4096, 14336, 32, 32, 8),
    "qwen2": (151936, 4096, 22016, 32, 32, 32),
    "gemma": (256000, 3072, 24576, 28, 16, 16),
}
"""Vocabulary, hidden size, width, layers, heads and key heads that a multimodal config leaves out
where its language model has them: LLaVA 1.5 names little more than the family."""

RENAMED = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings", "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size", "ffn_hidden_size": "intermediate_size",
    "num_kv_heads": "num_key_value_heads",
}  # fmt: skip
"""Other names of the same number (GPT-2, OPT, Falcon)."""

SAME_AS = {"gemma3": "gemma3_text", "smollm3": "llama", "ministral": "mistral",
           **dict.fromkeys(("kimi_k2", "deepseek_v32", "axk1", "glm_moe_dsa", "glm4_moe_lite"),
                           "deepseek_v3")}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a config.json; see `model.read`."""
    notes: list[str] = []
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        family = str(inner.get("model_type") or config.get("model_type") or "")
        around = {"dtype": config.get("dtype") or config.get("torch_dtype")}
        if "tie_word_embeddings" in config:
            around["tie_word_embeddings"] = config["tie_word_embeddings"]
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "num_key_value_heads")  # fmt: skip
        config = {**dict(zip(names, SIZES.get(family, ()), strict=False)), **around, **inner}
        notes.append("only the language model is counted, not the image or sound parts")
    else:
        family = str(config.get("model_type") or "")
    family = SAME_AS.get(family, family)
    builder = BUILDERS.get(family)
    if builder is None:
        notes.append(
            f"the family {family or '(none)'} is not known: counted by the names in its config, "
            "like a Llama"
        )
        builder = unknown.build
    values = _values(config, family)
    return builder(Shape(values, family, tuple(notes)))


def _values(config: Config, family: str) -> dict[str, Any]:
    """A null is a statement, too: DeepSeek-V2-Lite has `q_lora_rank: null`."""
    named = {**DEFAULTS.get(family, {}), **config}
    for old, new in RENAMED.items():
        if old in named and config.get(new) is None:
            named[new] = named[old]
    return named


def _llama(shape: Shape) -> Architecture:
    """Llama, Mistral and what is built like them."""
    bias = shape.flag("attention_bias")
    width = shape.number("intermediate_size")
    return shape.done(
        [
            *shape.projections(QKVO, bias=bias, out_bias=bias),
            *shape.gated(width, bias=shape.flag("mlp_bias")),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, True),),
        shape.rms(2),
    )


def _qwen2(shape: Shape) -> Architecture:
    width = shape.number("intermediate_size")
    return shape.done(
        [*shape.projections(QKVO, bias=True, out_bias=False), *shape.gated(width), *shape.head()],
        (Mlp(shape.layers, width, True),),
        shape.rms(2),
    )


def _qwen3(shape: Shape) -> Architecture:
    bias, width = shape.flag("attention_bias"), shape.number("intermediate_size")
    return shape.done(
        [*shape.projections(QKVO, bias=bias, out_bias=bias), *shape.gated(width), *shape.head()],
        (Mlp(shape.layers, width, True),),
        shape.rms(2, query_key=True),
    )


def _gemma(norms_per_layer: int, *, query_key: bool = False) -> Callable[[Shape], Architecture]:
    def make(shape: Shape) -> Architecture:
        bias, width = shape.flag("attention_bias"), shape.number("intermediate_size")
        return shape.done(
            [
                *shape.projections(QKVO, bias=bias, out_bias=bias),
                *shape.gated(width),
                *shape.head(),
            ],
            (Mlp(shape.layers, width, True),),
            shape.rms(norms_per_layer, query_key=query_key),
        )

    return make


def _mixtral(shape: Shape) -> Architecture:
    number, width = shape.number("num_local_experts"), shape.number("intermediate_size")
    active = shape.number("num_experts_per_tok")
    return shape.done(
        [
            *shape.projections(QKVO, bias=False, out_bias=False),
            *shape.experts(number, width, shape.layers),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, True, active, 0, number),),
        shape.rms(2),
    )


def _sparse_layers(shape: Shape) -> int:
    """How many layers have experts (Qwen 2 and 3)."""
    only = set(shape.values.get("mlp_only_layers") or ())
    step = shape.number("decoder_sparse_step")
    return sum(1 for i in range(shape.layers) if i not in only and (i + 1) % step == 0)


def _qwen_moe(shape: Shape) -> Architecture:
    third = shape.family == "qwen3_moe"
    bias = shape.flag("attention_bias") if third else shape.flag("qkv_bias")
    name = "num_experts" if "num_experts" in shape.values else "num_local_experts"
    number, width = shape.number(name), shape.number("moe_intermediate_size")
    sparse = _sparse_layers(shape)
    dense = shape.layers - sparse
    shared = 0 if third else shape.number("shared_expert_intermediate_size")
    matrices = [
        *shape.projections(QKVO, bias=bias, out_bias=bias and third),
        *(shape.gated(shape.number("intermediate_size"), count=dense) if dense else ()),
        *shape.experts(number, width, sparse),
    ]
    if shared:
        matrices += [
            *shape.shared(shared, sparse),
            shape.matrix(
                "shared_expert_gate", "router", shape.hidden, 1, feed="mlp input", count=sparse
            ),
        ]
    return shape.done(
        [*matrices, *shape.head()],
        (
            Mlp(sparse, width, True, shape.number("num_experts_per_tok"), shared, number),
            Mlp(dense, shape.some("intermediate_size"), True),
        ),
        shape.rms(2, query_key=third),
    )


def _deepseek(shape: Shape) -> Architecture:
    """Multi-head latent attention (arXiv 2405.04434) and experts behind the first dense layers."""
    rope, nope = shape.number("qk_rope_head_dim"), shape.number("qk_nope_head_dim")
    latent, value = shape.number("kv_lora_rank"), shape.number("v_head_dim")
    query, bias = shape.heads * (rope + nope), shape.flag("attention_bias")
    rank = shape.some("q_lora_rank")
    dense = min(shape.some("first_k_dense_replace"), shape.layers)
    sparse = shape.layers - dense
    number, width = shape.number("n_routed_experts"), shape.number("moe_intermediate_size")
    shared = shape.some("n_shared_experts") * width
    down = (
        [
            shape.matrix("q_a_proj", "attention", shape.hidden, rank, bias, "attention input"),
            shape.matrix("q_b_proj", "attention", rank, query, False, "query latent"),
        ]
        if rank
        else [shape.matrix("q_proj", "attention", shape.hidden, query, False, "attention input")]
    )
    matrices = [
        *down,
        shape.matrix("kv_a_proj_with_mqa", "attention", shape.hidden, latent + rope, bias,
                     "attention input"),
        shape.matrix("kv_b_proj", "attention", latent, shape.heads * (nope + value), False,
                     "latent"),
        shape.matrix("o_proj", "attention", shape.heads * value, shape.hidden, bias,
                     "attention output"),
        *(shape.gated(shape.number("intermediate_size"), count=dense) if dense else ()),
        *shape.experts(number, width, sparse),
        *(shape.shared(shared, sparse) if shared else ()),
        *shape.head(),
    ]  # fmt: skip
    norms = shape.layers * (2 * shape.hidden + latent + rank) + shape.hidden
    return shape.done(
        matrices,
        (
            Mlp(sparse, width, True, shape.number("num_experts_per_tok"), shared, number),
            Mlp(dense, shape.some("intermediate_size"), True),
        ),
        Norms(2, norms, "rms", latent + rank),
        attention=Attention(
            shape.heads, query, query, shape.heads * value, query, shape.heads * value
        ),
    )


def _layer_norms(shape: Shape, per_layer: int, *, final: bool = True) -> Norms:
    """Layer norms: a weight and a bias per channel."""
    numbers = 2 * shape.hidden * (shape.layers * per_layer + (1 if final else 0))
    return Norms(per_layer, numbers, "layer")


def _phi(shape: Shape) -> Architecture:
    """Phi 1 and 2: attention and feed-forward side by side behind one layer norm."""
    width = shape.number("intermediate_size")
    norms = _layer_norms(shape, 1)
    if shape.flag("qk_layernorm"):
        extra = shape.layers * 4 * (shape.hidden // shape.heads)
        norms = Norms(1, norms.parameters + extra, "layer", shape.query + shape.key)
    return shape.done(
        [
            *shape.projections(("q_proj", "k_proj", "v_proj", "dense"), bias=True, out_bias=True),
            *shape.plain(("fc1", "fc2"), width, bias=True, feed="attention input"),
            *shape.head(bias=True),
        ],
        (Mlp(shape.layers, width, False),),
        norms,
    )


def _phi3(shape: Shape) -> Architecture:
    """Phi 3 and 4: Llama's shapes in fused matrices."""
    width = shape.number("intermediate_size")
    fused = shape.query + 2 * shape.key
    return shape.done(
        [
            shape.matrix("qkv_proj", "attention", shape.hidden, fused, False, "attention input"),
            shape.matrix("o_proj", "attention", shape.query, shape.hidden, False,
                         "attention output"),
            shape.matrix("gate_up_proj", "mlp", shape.hidden, 2 * width, False, "mlp input"),
            shape.matrix("down_proj", "mlp", width, shape.hidden, False, "mlp output"),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, True),),
        shape.rms(2),
    )  # fmt: skip


def _gpt2(shape: Shape) -> Architecture:
    width = shape.some("intermediate_size", 4 * shape.hidden)
    return shape.done(
        [
            shape.matrix("c_attn", "attention", shape.hidden, 3 * shape.hidden, True,
                         "attention input"),
            shape.matrix("c_proj", "attention", shape.hidden, shape.hidden, True,
                         "attention output"),
            *shape.plain(("c_fc", "c_proj"), width, bias=True),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, False),),
        _layer_norms(shape, 2),
        positions=shape.number("max_position_embeddings") * shape.hidden,
    )  # fmt: skip


def _gpt_neox(shape: Shape) -> Architecture:
    bias, width = shape.flag("attention_bias"), shape.number("intermediate_size")
    return shape.done(
        [
            shape.matrix("query_key_value", "attention", shape.hidden, 3 * shape.hidden, bias,
                         "attention input"),
            shape.matrix("dense", "attention", shape.hidden, shape.hidden, bias,
                         "attention output"),
            *shape.plain(("dense_h_to_4h", "dense_4h_to_h"), width, bias=True),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, False),),
        _layer_norms(shape, 2),
    )  # fmt: skip


def _falcon(shape: Shape) -> Architecture:
    """Falcon: one key and value for all heads, or groups of them in the newer models."""
    newer, bias = shape.flag("new_decoder_architecture"), shape.flag("bias")
    if newer:
        shape.kv_heads = shape.some("num_key_value_heads", shape.heads)
    else:
        shape.kv_heads = 1 if shape.flag("multi_query") else shape.heads
    shape.key = shape.kv_heads * shape.head_dim
    fused = shape.query + 2 * shape.key
    width = shape.some("intermediate_size", 4 * shape.hidden)
    per_layer = 1
    if newer:
        per_layer = shape.some("num_ln_in_parallel_attn", 2)
    elif not shape.flag("parallel_attn"):
        per_layer = 2
    return shape.done(
        [
            shape.matrix("query_key_value", "attention", shape.hidden, fused, bias,
                         "attention input"),
            shape.matrix("dense", "attention", shape.hidden, shape.hidden, bias,
                         "attention output"),
            *shape.plain(("dense_h_to_4h", "dense_4h_to_h"), width, bias=bias),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, False),),
        _layer_norms(shape, per_layer),
        attention=replace(shape.attention(), broadcast=1 == shape.kv_heads < shape.heads),
    )  # fmt: skip


def _opt(shape: Shape) -> Architecture:
    """OPT: learned positions with an offset of two; the 350M has a narrower embedding."""
    bias, width = shape.flag("enable_bias"), shape.number("intermediate_size")
    narrow = shape.number("word_embed_proj_dim", shape.hidden)
    final = shape.flag("do_layer_norm_before") and not shape.flag("_remove_final_layer_norm")
    around = (
        [
            shape.matrix("project_in", "projection", narrow, shape.hidden, count=1),
            shape.matrix("project_out", "projection", shape.hidden, narrow, count=1),
        ]
        if narrow != shape.hidden
        else []
    )
    norms = _layer_norms(shape, 2, final=final)
    if not shape.flag("layer_norm_elementwise_affine"):
        norms = Norms(2, 0, "layer")
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return shape.done(
        [
            *around,
            *shape.projections(names, bias=bias, out_bias=bias),
            *shape.plain(("fc1", "fc2"), width, bias=bias),
            *shape.head(),
        ],
        (Mlp(shape.layers, width, False),),
        norms,
        embedding=shape.vocabulary * narrow,
        positions=(shape.number("max_position_embeddings") + 2) * shape.hidden,
    )


BUILDERS: dict[str, Callable[[Shape], Architecture]] = {
    "llama": _llama,
    "mistral": _llama,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen_moe,
    "gemma": _gemma(2),
    "gemma2": _gemma(4),
    "gemma3_text": _gemma(4, query_key=True),
    "phi": _phi,
    "phi3": _phi3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "falcon": _falcon,
    "opt": _opt,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}
"""Families by `model_type`."""
