"""The numbers that all families have, and the parts that they are put together from."""

from typing import Any

from orchestrator.errors import UsageError
from orchestrator.memory.model import Architecture, Attention, Matrix, Mlp, Norms

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


class Shape:
    """The numbers that all families have, and the parts that they are put together from."""

    def __init__(self, values: dict[str, Any], family: str, notes: tuple[str, ...]) -> None:
        self.values = values
        self.family = family or "unknown"
        self.notes = notes
        self.hidden = self.number("hidden_size")
        self.layers = self.number("num_hidden_layers")
        self.heads = self.number("num_attention_heads")
        self.vocabulary = self.number("vocab_size")
        self.kv_heads = self.some("num_key_value_heads", self.heads)
        self.head_dim = self.some("head_dim", self.hidden // self.heads)
        self.query = self.heads * self.head_dim
        self.key = self.kv_heads * self.head_dim
        self.tied = bool(values.get("tie_word_embeddings", False))

    def number(self, name: str, default: int | None = None) -> int:
        """A count of the config.

        Raises:
            UsageError: it is not there, or is none.
        """
        value = self.values.get(name, default)
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]  # one per layer, all alike
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}..."
            raise UsageError(
                f"the config of this {self.family} model has no usable {name} ({shown})",
                hint="is this the config.json of a language model with attention?",
            )
        return value

    def some(self, name: str, default: int = 0) -> int:
        """A count that may be left out, null or 0: then it is the default."""
        return self.number(name) if self.values.get(name) else default

    def flag(self, name: str) -> bool:
        """A switch of the config."""
        return bool(self.values.get(name, False))

    def attention(self) -> Attention:
        """Grouped-query attention: keys and values may be repeated for all heads."""
        return Attention(self.heads, self.query, self.key, self.key, self.query, self.query)

    def projections(
        self, names: tuple[str, str, str, str], *, bias: bool, out_bias: bool
    ) -> list[Matrix]:
        """Query, key, value and output matrices."""
        q, k, v, out = names
        return [
            self.matrix(q, "attention", self.hidden, self.query, bias, "attention input"),
            self.matrix(k, "attention", self.hidden, self.key, bias, "attention input"),
            self.matrix(v, "attention", self.hidden, self.key, bias, "attention input"),
            self.matrix(out, "attention", self.query, self.hidden, out_bias, "attention output"),
        ]

    def matrix(
        self,
        name: str,
        group: Any,
        inputs: int,
        outputs: int,
        bias: bool = False,
        feed: str = "",
        count: int | None = None,
        module: bool = True,
    ) -> Matrix:
        """A matrix of every layer, or of `count` places."""
        times = self.layers if count is None else count
        return Matrix(name, group, inputs, outputs, times, bias, feed, module)

    def gated(self, width: int, *, bias: bool = False, count: int | None = None) -> list[Matrix]:
        """A gated feed-forward part of three matrices."""
        return [
            self.matrix("gate_proj", "mlp", self.hidden, width, bias, "mlp input", count),
            self.matrix("up_proj", "mlp", self.hidden, width, bias, "mlp input", count),
            self.matrix("down_proj", "mlp", width, self.hidden, bias, "mlp output", count),
        ]

    def head(self, *, bias: bool = False) -> list[Matrix]:
        """The output matrix, unless it is the embedding's."""
        if self.tied:
            return []
        return [
            self.matrix("lm_head", "lm_head", self.hidden, self.vocabulary, bias, "head", count=1)
        ]

    def rms(self, per_layer: int, *, query_key: bool = False) -> Norms:
        """RMS norms: one number per channel, and one more at the end of the model."""
        extra = 2 * self.head_dim if query_key else 0
        numbers = self.layers * (per_layer * self.hidden + extra) + self.hidden
        return Norms(per_layer, numbers, "rms", self.query + self.key if query_key else 0)

    def experts(self, number: int, width: int, layers: int) -> list[Matrix]:
        """Experts as two fused parameters per layer, and the router before them."""
        return [
            self.matrix("gate", "router", self.hidden, number, feed="mlp input", count=layers,
                        module=False),
            self.matrix("gate_up_proj", "experts", self.hidden, 2 * width, feed="expert input",
                        count=layers * number, module=False),
            self.matrix("down_proj", "experts", width, self.hidden, feed="expert output",
                        count=layers * number, module=False),
        ]  # fmt: skip

    def shared(self, width: int, layers: int) -> list[Matrix]:
        """Experts that see every token."""
        return [
            Matrix(m.name, "shared experts", m.inputs, m.outputs, m.count, m.bias, m.feed)
            for m in self.gated(width, count=layers)
        ]

    def plain(
        self, names: tuple[str, str], width: int, *, bias: bool, feed: str = "mlp input"
    ) -> list[Matrix]:
        """A feed-forward part of two matrices."""
        up, down = names
        return [
            self.matrix(up, "mlp", self.hidden, width, bias, feed),
            self.matrix(down, "mlp", width, self.hidden, bias, "mlp output"),
        ]

    def done(
        self,
        matrices: list[Matrix],
        mlps: tuple[Mlp, ...],
        norms: Norms,
        *,
        attention: Attention | None = None,
        embedding: int | None = None,
        positions: int = 0,
    ) -> Architecture:
        """All parts together."""
        dtype = self.values.get("dtype") or self.values.get("torch_dtype") or "bfloat16"
        context = self.values.get("max_position_embeddings")
        return Architecture(
            model_type=self.family,
            hidden=self.hidden,
            layers=self.layers,
            vocabulary=self.vocabulary,
            tied=self.tied,
            embedding=embedding or self.vocabulary * self.hidden,
            positions=positions,
            matrices=tuple(matrices),
            attention=attention or self.attention(),
            mlps=tuple(mlp for mlp in mlps if mlp.layers),
            norms=norms,
            softcap=bool(self.values.get("final_logit_softcapping")),
            context=context if isinstance(context, int) else 0,
            dtype=str(dtype),
            notes=self.notes,
        )
