"""Bytes that a forward pass keeps for its backward pass, per layer.

The list of tensors was read off transformers 5.16.1 with `torch.autograd.graph.saved_tensors_hooks`
(what a layer of a Llama saves, tensor by tensor) and is compared with it in
`tests/smoke/test_memory.py`. Per token, with hidden size h, query width q, key and value width k,
feed-forward width i, c bytes of the computation and r bytes of the residual stream:

    norms       4h each (the float32 copy of the input), and rh where the norm is trained
    attention   c(q + k + k) for queries, keys and values; cq for the output; 4 per head
                sdpa repeats keys and values for all heads, and saves its mask: c x sequence
                eager saves the weights instead: (4 + c) x heads x sequence
    MLP         3ci gated (gate, its activation, up), ci plain
    matrices    c x inputs for each tensor that a trained matrix reads; one for all that read the
                same if it comes in the computation's type, else one each
    LoRA        c x inputs for each matrix with a LoRA (peft casts its input, autocast casts it
                back: a copy each), 2 x rank, and 1 byte x inputs for the mask of its dropout

The formula of Korthikanti et al. (arXiv 2205.05198, 34sbh + 5as^2b) is the same count for GPT in
16 bit with dropout.
"""

from dataclasses import dataclass

from orchestrator.memory.model import Architecture, Mlp
from orchestrator.memory.precision import Precision
from orchestrator.memory.settings import Settings

PYTHON_GELU = ("gpt2", "phi")
"""Families whose GELU is written out in Python operations, each of which saves its input."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Bytes per token of one layer: what is saved, and what its backward pass needs beside it."""

    saved: float
    backward: float


def layer_cost(architecture: Architecture, settings: Settings, held: Precision) -> LayerCost:
    """The costliest layer (of a mixture: one with experts)."""
    mlp = max(architecture.mlps, key=lambda part: part.width * part.active + part.shared)
    saved = (
        _norms(architecture, settings, held)
        + _attention(architecture, settings)
        + _mlp(architecture, settings, mlp)
        + _inputs(architecture, settings, held, mlp)
    )
    return LayerCost(saved, _backward(architecture, settings, held, mlp))


def _trained(settings: Settings) -> bool:
    return settings.lora is None


def _norms(architecture: Architecture, settings: Settings, held: Precision) -> float:
    norms, trained = architecture.norms, _trained(settings)
    hidden = norms.per_layer * architecture.hidden
    cost = 4.0 * (hidden + norms.extra_width)
    if norms.kind == "rms" and trained:
        gemma = architecture.model_type.startswith("gemma")
        own = 4 if gemma else held.residual
        cost += own * hidden + settings.compute * norms.extra_width
    return cost


def _attention(architecture: Architecture, settings: Settings) -> float:
    shape, compute = architecture.attention, settings.compute
    if settings.attention == "flash":
        return compute * (shape.query + shape.key + shape.value + shape.output) + 4 * shape.heads
    repeated = compute * (shape.query + shape.repeated_key + shape.repeated_value)
    if settings.attention == "eager":
        weights = 4 if compute == 4 else 4 + compute
        return repeated + weights * shape.heads * settings.sequence
    if shape.broadcast:
        return 2 * repeated + 2 * compute * shape.heads * settings.sequence
    return repeated + compute * (shape.output + settings.sequence) + 4 * shape.heads


def _mlp(architecture: Architecture, settings: Settings, mlp: Mlp) -> float:
    compute = settings.compute
    width = mlp.width * mlp.active + mlp.shared
    if not mlp.gated:
        written_out = architecture.model_type in PYTHON_GELU
        return (4 if written_out else 1) * compute * width
    cost = 3.0 * compute * width
    if mlp.total > 1:  # each token's input is copied for its experts, and their outputs are weighed
        cost += 2 * compute * mlp.active * architecture.hidden + 8 * mlp.total
    return cost


def _inputs(architecture: Architecture, settings: Settings, held: Precision, mlp: Mlp) -> float:
    """What matrices and LoRAs save of their inputs."""
    compute, lora = settings.compute, settings.lora
    dense = mlp.total == 1
    matrices = [
        m
        for m in architecture.linear
        if m.group == "attention"
        or (m.group == "mlp" and dense)
        or (m.group in ("shared experts", "router") and not dense)
    ]
    if lora is not None:
        per = compute + (1 if lora.dropout else 0)
        own = [m for m in matrices if lora.on(m)]
        dora = sum(2 * compute * m.outputs for m in own) if lora.dora else 0
        if compute == 4 and not lora.dropout:
            feeds = {m.feed: m.inputs for m in own}
            return sum(4 * width for width in feeds.values()) + 8 * lora.rank * len(own) + dora
        return sum(per * m.inputs + 2 * compute * lora.rank for m in own) + dora
    cast = held.residual != compute or architecture.norms.kind == "layer"
    cost = 0.0
    for feed in sorted({m.feed for m in matrices}):
        readers = [m for m in matrices if m.feed == feed]
        if settings.attention != "eager" and feed == "attention output":
            continue  # the attention kernel has saved it
        copies = len(readers) if cast and feed in ("attention input", "mlp input") else 1
        cost += copies * compute * readers[0].inputs
    if not dense:
        cost += compute * mlp.active * mlp.width
    return cost


def _backward(architecture: Architecture, settings: Settings, held: Precision, mlp: Mlp) -> float:
    """Gradients of a layer's activations that exist at the same time, at most.

    In the gated MLP that is those of both branches and of their product; in eager attention those
    of the weights before and after the softmax in float32, less what is saved of them in 16 bit.
    """
    compute = settings.compute
    width = mlp.width * mlp.active + mlp.shared
    feed_forward = compute * (3 if mlp.gated else 2) * width
    attention = compute * (2 * architecture.attention.query)
    if settings.attention == "eager":
        weights = 8 if compute == 4 else 6
        attention += weights * architecture.attention.heads * settings.sequence
    return max(feed_forward, attention) + (held.residual + 4) * architecture.hidden
