"""Architecture numbers and exact parameter counts of a language model, from its config.json alone.

A model is a list of matrices; everything else (counts by group, LoRA parts, what is quantized,
which inputs are kept for the backward pass) is read off that list. The counts are those of the
classes in transformers 5.16.1; tests compare them with models made there on the meta device and
with the totals published for the checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Group = Literal["attention", "mlp", "experts", "shared experts", "router", "lm_head", "projection"]
GROUPS: tuple[str, ...] = (
    "embeddings", "lm_head", "attention", "mlp", "experts", "shared experts", "router",
    "projection", "norms",
)  # fmt: skip
"""Module groups, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix that occurs `count` times, each with `outputs` x `inputs` numbers.

    `name` is the last part of its path, which is what LoRA targets name. `feed` names the tensor it
    reads: matrices with the same feed in a layer share one saved input. `module` is false for the
    fused experts: transformers 5 holds them as one parameter per layer, which is no linear module,
    so neither bitsandbytes quantizes it nor does `all-linear` put a LoRA on it.
    """

    name: str
    group: Group
    inputs: int
    outputs: int
    count: int
    bias: bool = False
    feed: str = ""
    module: bool = True

    @property
    def parameters(self) -> int:
        """Numbers in all of them together, biases included."""
        return self.count * (self.inputs * self.outputs + self.biases)

    @property
    def weights(self) -> int:
        """Numbers in all of them together, without biases."""
        return self.count * self.inputs * self.outputs

    @property
    def biases(self) -> int:
        """Numbers in one bias."""
        return self.outputs if self.bias else 0


@dataclass(frozen=True, slots=True)
class Attention:
    """Shape of the attention of a layer: heads, and numbers per token of query, key and value.

    `broadcast`: sdpa gets one key for all heads, as Falcon's does; its fused kernels want as many
    keys as queries, so torch computes the weights in full.
    """

    heads: int
    query: int
    key: int
    value: int
    repeated_key: int
    repeated_value: int
    broadcast: bool = False

    @property
    def output(self) -> int:
        """Numbers per token that go into the output projection."""
        return self.repeated_value


@dataclass(frozen=True, slots=True)
class Mlp:
    """Width of the feed-forward part of a layer.

    `active` experts of width `width` work on each token (1 for a dense one), beside `shared`.
    `layers` is how many layers have it; `gated` ones have three matrices, others two.
    """

    layers: int
    width: int
    gated: bool
    active: int = 1
    shared: int = 0
    total: int = 1


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms of a layer over the hidden size, further normed numbers per token, and their kind."""

    per_layer: int
    parameters: int
    kind: Literal["rms", "layer"] = "rms"
    extra_width: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """What memory depends on. All counts are of the whole model.

    `softcap`: the logits go through a tanh (Gemma 2), which keeps a copy of them.
    """

    model_type: str
    hidden: int
    layers: int
    vocabulary: int
    tied: bool
    embedding: int
    positions: int
    matrices: tuple[Matrix, ...]
    attention: Attention
    mlps: tuple[Mlp, ...]
    norms: Norms
    context: int = 0
    softcap: bool = False
    dtype: str = "bfloat16"
    notes: tuple[str, ...] = field(default=())

    @property
    def groups(self) -> dict[str, int]:
        """Parameters by module group; a tied lm_head has none of its own."""
        found = dict.fromkeys(GROUPS, 0)
        found["embeddings"] = self.embedding + self.positions
        found["norms"] = self.norms.parameters
        for matrix in self.matrices:
            found[matrix.group] += matrix.parameters
        return {name: count for name, count in found.items() if count}

    @property
    def parameters(self) -> int:
        """All parameters; a tied lm_head counts once."""
        return sum(self.groups.values())

    @property
    def head(self) -> int:
        """Numbers of the output matrix, its own or the tied embedding."""
        own = sum(m.weights for m in self.matrices if m.group == "lm_head")
        return own or self.vocabulary * self.hidden

    @property
    def linear(self) -> tuple[Matrix, ...]:
        """Matrices of the layers: all but lm_head and what embeds or projects around the layers."""
        return tuple(m for m in self.matrices if m.group not in ("lm_head", "projection"))

    @property
    def largest_layer(self) -> int:
        """Parameters of the largest layer (experts included) or of the embeddings if larger.

        What ZeRO-3 and FSDP hold whole at one time is a multiple of it.
        """
        parts = dict.fromkeys(("attention", "dense", "sparse"), 0)
        for matrix in self.linear:
            kind = {"attention": "attention", "mlp": "dense"}.get(matrix.group, "sparse")
            parts[kind] += matrix.parameters
        layers = {"dense" if mlp.total == 1 else "sparse": mlp.layers for mlp in self.mlps}
        feed_forward = (parts[kind] // layers.get(kind, 1) for kind in ("dense", "sparse"))
        return max(parts["attention"] // self.layers + max(feed_forward), self.embedding)

    @property
    def active(self) -> int:
        """Parameters that work on one token."""
        sparse = sum(m.parameters for m in self.matrices if m.group == "experts")
        if not sparse:
            return self.parameters
        moe = next(mlp for mlp in self.mlps if mlp.total > 1)
        return self.parameters - sparse + sparse * moe.active // moe.total

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "model_type": self.model_type,
            "parameters": self.parameters,
            "active_parameters": self.active,
            "groups": self.groups,
            "hidden_size": self.hidden,
            "layers": self.layers,
            "vocabulary": self.vocabulary,
            "tied_embeddings": self.tied,
            "context": self.context or None,
            "dtype": self.dtype,
            "notes": list(self.notes),
        }


def read(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a config.json describes.

    A multimodal config is read for its text part, with a note. A family that is not known is taken
    for Llama-like, with a note.

    Raises:
        UsageError: it lacks what every language model's config has.
    """
    from orchestrator.memory.families import build

    return build(config)
