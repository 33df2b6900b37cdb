"""A family without a builder: counted like a Llama, and its experts by the names in its config.

What experts there are decides the size of a mixture: gpt-oss-120b counted without them would be 3
billion parameters. `tests/smoke/test_memory.py` compares this with models of such families.
"""

from collections.abc import Sequence

from orchestrator.memory.model import Architecture, Matrix, Mlp
from orchestrator.memory.shape import QKVO, Shape

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
DENSE_WIDTH = ("intermediate_size_mlp", "dense_intermediate_size", "ffn_hidden_size",
               "intermediate_size")  # fmt: skip
ACTIVE = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size")
DENSE_FIRST = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
PLAIN = ("relu2", "xielu")
"""Activations of feed-forward parts without a gate."""


def build(shape: Shape) -> Architecture:
    """The architecture by the names that most families share."""
    bias = shape.flag("attention_bias")
    matrices = shape.projections(QKVO, bias=bias, out_bias=bias)
    number = _first(shape, EXPERTS)
    if number > 1 and shape.values.get("is_moe") is not False:
        mixed, mlps = _mixture(shape, number)
        return shape.done([*matrices, *mixed, *shape.head()], mlps, shape.rms(2))
    width = shape.number("intermediate_size")
    gated = shape.values.get("hidden_act") not in PLAIN or shape.family == "bitnet"
    gated = gated and shape.family != "starcoder2"
    feed_forward = (
        shape.gated(width, bias=shape.flag("mlp_bias"))
        if gated
        else shape.plain(("up_proj", "down_proj"), width, bias=shape.flag("mlp_bias"))
    )
    return shape.done(
        [*matrices, *feed_forward, *shape.head()],
        (Mlp(shape.layers, width, gated),),
        shape.rms(2),
        positions=_per_layer_embedding(shape),
    )


def _first(shape: Shape, names: Sequence[str], default: int = 0) -> int:
    return next((n for name in names if (n := shape.some(name))), default)


def _mixture(shape: Shape, number: int) -> tuple[list[Matrix], tuple[Mlp, ...]]:
    width = _first(shape, WIDTH) or shape.number("intermediate_size")
    sparse = sum(_sparse(shape, layer) for layer in range(shape.layers))
    dense, dense_width = shape.layers - sparse, _first(shape, DENSE_WIDTH, width)
    shared = _first(shape, SHARED_WIDTH) or _first(shape, SHARED) * width
    if shape.family.startswith("llama4"):
        shared = width  # its config does not say it
    matrices = shape.experts(number, width, sparse)
    matrices += shape.shared(shared, sparse) if shared else []
    matrices += shape.gated(dense_width, count=dense) if dense else []
    active = _first(shape, ACTIVE, 2)
    return matrices, (
        Mlp(sparse, width, True, active, shared, number),
        Mlp(dense, dense_width, True),
    )


def _sparse(shape: Shape, layer: int) -> bool:
    """Whether a layer has experts: by a list, else by a first one and a rhythm."""
    values = shape.values
    kinds, chosen = values.get("mlp_layer_types"), values.get("moe_layers")
    if isinstance(kinds, list) and len(kinds) == shape.layers:
        return str(kinds[layer]) != "dense"
    if isinstance(chosen, list) and chosen:
        return layer in chosen
    if layer in (values.get("mlp_only_layers") or ()) or layer < _first(shape, DENSE_FIRST):
        return False
    if period := shape.some("expert_layer_period"):
        return layer % period == shape.some("expert_layer_offset")
    step = shape.some("decoder_sparse_step") or shape.some("interleave_moe_layer_step") or 1
    return (layer + 1) % step == 0


def _per_layer_embedding(shape: Shape) -> int:
    """Gemma 3n and 4: a narrow embedding of its own for each layer."""
    width = shape.some("hidden_size_per_layer_input")
    return width * shape.layers * shape.some("vocab_size_per_layer_input") if width else 0
