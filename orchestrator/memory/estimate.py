"""The bytes of every term of a training run, each with its formula and source.

A peak is a moment, not a sum of maxima: the logits are gone when the optimizer steps, and gradients
are not there yet when the first loss is computed. So every term says at which moments it is held,
and the peak is the largest of the moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.memory.activations import layer_cost
from orchestrator.memory.gpus import GIB
from orchestrator.memory.model import Architecture
from orchestrator.memory.optimizers import LAYERWISE, Optimizer, optimizer
from orchestrator.memory.precision import Precision, precision
from orchestrator.memory.settings import Layout, Settings

Moment = Literal["forward", "loss", "backward", "gradients", "step"]
MOMENTS: dict[Moment, str] = {
    "forward": "at the end of the forward pass",
    "loss": "when the gradient of the logits is computed",
    "backward": "in the backward pass of the last layer",
    "gradients": "at the end of the backward pass",
    "step": "in the optimizer's step",
}
"""Moments of a training step at which the peak can be, and how people call them."""
ALWAYS: tuple[Moment, ...] = tuple(MOMENTS)
LATE: tuple[Moment, ...] = ("gradients", "step")

CONTEXT = int(0.55 * GIB)
NCCL = int(0.35 * GIB)
FRAGMENTATION = 0.05
PROCESS = int(2.5 * GIB)
"""Host memory of one training process: Python, torch with CUDA, the backend, its data."""


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes of one thing, when they are held, and why."""

    group: str
    name: str
    bytes: int
    formula: str
    source: str
    moments: tuple[Moment, ...] = ALWAYS
    host: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one GPU, and the host of one node, need under a layout."""

    layout: Layout
    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()

    def at(self, moment: Moment) -> int:
        """Bytes on the GPU at a moment, without the overhead of CUDA."""
        return sum(t.bytes for t in self.terms if not t.host and moment in t.moments)

    @property
    def moment(self) -> Moment:
        """When the peak is."""
        return max(MOMENTS, key=self.at)

    @property
    def allocated(self) -> int:
        """Bytes of tensors at the peak: what `torch.cuda.max_memory_allocated` tells."""
        return self.at(self.moment)

    @property
    def overhead(self) -> int:
        """CUDA's context and libraries, and what the allocator cannot use."""
        several = self.layout.gpus > 1
        return CONTEXT + (NCCL if several else 0) + int(FRAGMENTATION * self.allocated)

    @property
    def total(self) -> int:
        """Bytes of one GPU."""
        return self.allocated + self.overhead

    @property
    def host(self) -> int:
        """Bytes of the host memory of one node."""
        return sum(term.bytes for term in self.terms if term.host)

    @property
    def groups(self) -> dict[str, int]:
        """Bytes at the peak by group of terms."""
        found: dict[str, int] = {}
        for term in self.terms:
            if not term.host and self.moment in term.moments:
                found[term.group] = found.get(term.group, 0) + term.bytes
        return {**found, "CUDA": self.overhead}

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `run.json`."""
        return {
            "layout": self.layout.name,
            "gpus": self.layout.gpus,
            "total_bytes": self.total,
            "allocated_bytes": self.allocated,
            "host_bytes_per_node": self.host,
            "peak": self.moment,
            "groups": self.groups,
            "terms": [
                {
                    "group": term.group,
                    "name": term.name,
                    "bytes": term.bytes,
                    "where": "host" if term.host else "gpu",
                    "moments": list(term.moments),
                    "formula": term.formula,
                    "source": term.source,
                }
                for term in self.terms
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """Numbers of weights by how they are held and trained."""

    quantized: int
    layers: int
    edges: int
    lora: int
    saved: int
    trained_layers: int
    trained_edges: int

    @property
    def trained(self) -> int:
        """Numbers that get gradients and optimizer states."""
        return self.trained_layers + self.trained_edges + self.lora + self.saved


def counted(architecture: Architecture, settings: Settings) -> Counted:
    """How the parameters of a model split up under the settings."""
    lora = settings.lora
    quantized = 0
    if settings.quantization != "none":
        quantized = sum(
            m.weights
            for m in architecture.linear
            if m.module or (m.group == "experts" and settings.quantized_experts)
        )
    own_head = sum(m.parameters for m in architecture.matrices if m.group == "lm_head")
    around = sum(m.parameters for m in architecture.matrices if m.group == "projection")
    edges = architecture.embedding + architecture.positions + own_head + around
    edges += architecture.norms.parameters
    layers = architecture.parameters - edges - quantized
    if lora is not None:
        adapters = 0
        for m in architecture.matrices:
            if lora.on(m):
                adapters += m.count * lora.rank * (m.inputs + m.outputs)
                adapters += m.count * m.outputs if lora.dora else 0
        return Counted(quantized, layers, edges, adapters, _saved(architecture, lora.saved), 0, 0)
    share = settings.trained_share
    if share < 1:
        return Counted(quantized, layers, edges, 0, 0, int(layers * share), 0)
    return Counted(quantized, layers, edges, 0, 0, layers, edges)


def _saved(architecture: Architecture, names: tuple[str, ...]) -> int:
    """Numbers of modules that are trained in full beside a LoRA: peft keeps a copy of each."""
    found = sum(m.parameters for m in architecture.matrices if m.name in names)
    if {"embed_tokens", "wte", "embed_in", "word_embeddings"} & set(names):
        found += architecture.embedding
    if "lm_head" in names and architecture.tied:
        found += architecture.embedding
    return found


def billions(number: float) -> str:
    """A count as people write it."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def estimate(architecture: Architecture, settings: Settings, layout: Layout) -> Estimate:
    """Everything that a run of these settings needs."""
    held = precision(architecture, settings, layout)
    numbers = counted(architecture, settings)
    kind = optimizer(settings.optimizer)
    notes = list(architecture.notes + settings.notes)
    if not kind.known:
        notes.append(f"optimizer {settings.optimizer} is not known: counted as Adam in float32")
    if layout.kind != "one" and settings.quantization != "none" and layout.stage == 3:
        notes.append("a quantized base is counted whole on every GPU: sharding it is not reliable")
    whole = _Run(architecture, settings, layout, held, numbers, kind)
    here = max(1, layout.gpus // max(layout.nodes, 1))
    # what is moved off a GPU lies on its node, beside what the node's other GPUs moved there
    terms = (
        replace(t, bytes=t.bytes * here) if t.host and t.group != "host" else t
        for t in whole.terms()
    )
    return Estimate(layout, tuple(t for t in terms if t.bytes > 0), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Run:
    """The terms of one run; a method per group."""

    architecture: Architecture
    settings: Settings
    layout: Layout
    held: Precision
    numbers: Counted
    optimizer: Optimizer

    def terms(self) -> Iterator[Term]:
        """All of them."""
        yield from self._weights()
        yield from self._gradients()
        yield from self._states()
        yield from self._activations()
        yield from self._loss()
        yield from self._sharding_buffers()
        yield from self._host()

    # what is there all the time

    def _weights(self) -> Iterator[Term]:
        numbers, held, settings = self.numbers, self.held, self.settings
        parts, note = self._parts("weights")
        offload = self.layout.offload == "all" and self.layout.stage == 3
        for name, count, size in (
            ("weights of the layers", numbers.layers, held.layers),
            ("embeddings, lm_head, norms", numbers.edges, held.edges),
        ):
            yield Term(
                "weights", name, count * size // parts,
                f"{billions(count)} x {size} B{note}", held.source, host=offload,
            )  # fmt: skip
        if numbers.quantized:
            yield from self._quantized()
        if settings.reference:
            yield Term(
                "weights", "reference model",
                self.architecture.parameters * settings.compute // parts,
                f"{billions(self.architecture.parameters)} x {settings.compute} B{note}",
                "DPO and KTO without a LoRA load the model a second time (TRL)",
            )  # fmt: skip
        if numbers.lora:
            yield Term(
                "LoRA", "LoRA weights", numbers.lora * held.lora // parts,
                f"{billions(numbers.lora)} x {held.lora} B{note}; rank x (inputs + outputs) each",
                "arXiv 2106.09685; peft casts a LoRA to float32 (autocast_adapter_dtype)",
            )  # fmt: skip
        if numbers.saved:
            yield Term(
                "LoRA", "modules trained in full", numbers.saved * held.lora // parts,
                f"{billions(numbers.saved)} x {held.lora} B{note}",
                "peft ModulesToSaveWrapper keeps a copy of each",
            )  # fmt: skip

    def _quantized(self) -> Iterator[Term]:
        """A quantized base is whole on every GPU: ZeRO-3 does not cut it (InternLM/xtuner 88)."""
        count, settings = self.numbers.quantized, self.settings
        parts = self.layout.shares("weights") if self.layout.kind == "fsdp" else 1
        if settings.quantization == "int8":
            rows = sum(m.outputs * m.count for m in self.architecture.linear if m.module)
            yield Term("weights", "int8 weights", count // parts, f"{billions(count)} x 1 B",
                       "arXiv 2208.07339, bitsandbytes Linear8bitLt")  # fmt: skip
            yield Term("weights", "int8 scales", rows * 4 // parts,
                       f"{billions(rows)} rows x 4 B", "bitsandbytes Int8Params.SCB")  # fmt: skip
            return
        yield Term("weights", "nf4 weights", count // 2 // parts, f"{billions(count)} x 0.5 B",
                   "arXiv 2305.14314, bitsandbytes Linear4bit")  # fmt: skip
        if settings.double_quantization:
            size, text = 1 / 64 + 4 / (64 * 256), "1 B per 64 + 4 B per 64 x 256"
        else:
            size, text = 4 / 64, "4 B per 64"
        yield Term("weights", "nf4 scales", int(count * size) // parts,
                   f"{billions(count)} x ({text})", "arXiv 2305.14314, section 3")  # fmt: skip

    def _parts(self, what: Literal["weights", "gradients", "optimizer"]) -> tuple[int, str]:
        parts = self.layout.shares(what)
        return parts, f" / {parts} GPUs" if parts > 1 else ""

    def _trained_bytes(self) -> int:
        """Bytes of what is trained, in the types of its parameters."""
        numbers, held = self.numbers, self.held
        return (
            numbers.trained_layers * held.layers
            + numbers.trained_edges * held.edges
            + (numbers.lora + numbers.saved) * held.lora
        )

    def _gradients(self) -> Iterator[Term]:
        layout, size = self.layout, self._trained_bytes()
        if self.settings.optimizer in LAYERWISE and layout.kind == "one":
            layer = size // max(self.architecture.layers, 1)
            yield Term("gradients", "gradients of a layer", layer,
                       f"{billions(size)}B / {self.architecture.layers} layers",
                       f"{self.settings.optimizer} updates within the backward pass",
                       ("backward", "gradients"))  # fmt: skip
            return
        parts, note = self._parts("gradients")
        # with one forward pass per step they are set to None before the next one
        kept = self.settings.accumulation > 1 or (layout.kind == "zero" and layout.stage == 3)
        offloaded = layout.offload != "none" and layout.kind in ("zero", "fsdp")
        count = self.numbers.trained
        yield Term(
            "gradients", "gradients", size // parts, f"{billions(count)} in their own type{note}",
            "torch keeps a gradient in its parameter's type; the trainer sets it to None after "
            "each step", ALWAYS if kept else LATE, host=offloaded,
        )  # fmt: skip
        if layout.kind == "ddp":
            yield Term("gradients", "DDP buckets", size, f"{billions(count)} in their own type",
                       "DistributedDataParallel copies gradients into buckets unless "
                       "gradient_as_bucket_view")  # fmt: skip

    def _states(self) -> Iterator[Term]:
        parts, note = self._parts("optimizer")
        numbers, held, layout = self.numbers, self.held, self.layout
        offloaded = layout.offload != "none" and layout.kind in ("zero", "fsdp")
        source = (
            "torch.zeros_like(parameter)"
            if self.optimizer.store == "own"
            else (
                "bitsandbytes.optim"
                if self.optimizer.store in ("8bit", "float32")
                else "its paper and code"
            )
        )
        size, formula = self._state_bytes()
        yield Term("optimizer", f"states of {self.settings.optimizer}", int(size) // parts,
                   formula + note, source, host=offloaded)  # fmt: skip
        if held.master and self.settings.compute == 2:
            count = numbers.trained
            yield Term("optimizer", "float32 master weights", 4 * count // parts,
                       f"{billions(count)} x 4 B{note}", "DeepSpeed fp32_groups_flat",
                       host=offloaded)  # fmt: skip
            step = min(count // parts, 10**9) if layout.stage == 3 else count // parts
            yield Term("optimizer", "float32 gradients of the step", 4 * step,
                       f"{billions(step)} x 4 B", "DeepSpeed: the averaged gradients are cast for "
                       "the step (18 B in its estimators)", ("step",), host=offloaded)  # fmt: skip
        if self.optimizer.temporary and not offloaded:
            one = 4 * numbers.trained if held.master else self._trained_bytes()
            yield Term("optimizer", "temporary of the step", one // parts,
                       "a copy of one state", "torch foreach optimizers compute the denominator "
                       "of all parameters at once; measured", ("step",))  # fmt: skip

    def _state_bytes(self) -> tuple[float, str]:
        """Bytes of the states of all GPUs together, and how they are counted."""
        numbers, kind, held = self.numbers, self.optimizer, self.held
        if held.master:  # flat float32 partitions, which have no embeddings and no rows any more
            if kind.store in ("factored", "projected"):
                kind = Optimizer(1 if kind.store == "factored" else 2, "float32")
            size = kind.per_parameter(4)
            return size * numbers.trained, f"{billions(numbers.trained)} x {size:.3g} B"
        if kind.store == "8bit" and numbers.trained_edges:
            embedded = self.architecture.embedding
            rest = numbers.trained - embedded
            size = kind.per_parameter(4)
            text = f"{billions(rest)} x {size:.3g} B + embeddings x {kind.states * 4:.3g} B"
            return rest * size + embedded * kind.states * 4, text
        if kind.store in ("factored", "projected", "muon"):
            return self._structured(kind)
        sizes = (
            (numbers.trained_layers, kind.per_parameter(held.layers)),
            (numbers.trained_edges, kind.per_parameter(held.edges)),
            (numbers.lora + numbers.saved, kind.per_parameter(held.lora)),
        )
        text = " + ".join(f"{billions(n)} x {size:.3g} B" for n, size in sizes if n)
        return sum(n * size for n, size in sizes), text

    def _structured(self, kind: Optimizer) -> tuple[float, str]:
        """States that depend on the matrices' shapes."""
        architecture, settings = self.architecture, self.settings
        if settings.lora is not None or settings.trained_share < 1:
            size = max(kind.states, 1) * 4
            return size * self.numbers.trained, f"{billions(self.numbers.trained)} x {size:.3g} B"
        edges = 2.0 * self.numbers.edges * self.held.edges
        if kind.store == "factored":
            rows = sum(m.count * (m.inputs + m.outputs) for m in architecture.matrices)
            rows += architecture.vocabulary + architecture.hidden
            return 4.0 * rows, f"{billions(rows)} rows and columns x 4 B"
        if kind.store == "muon":
            inner = sum(m.weights for m in architecture.linear) * kind.states * self.held.layers
            return inner + edges, "one momentum per matrix; two states for the rest"
        rank, own = settings.projection_rank, self.held.layers
        states = sum(m.count * rank * max(m.inputs, m.outputs) for m in architecture.linear)
        projections = sum(m.count * rank * min(m.inputs, m.outputs) for m in architecture.linear)
        if settings.optimizer.startswith("apollo"):
            projections = 0  # made again from a seed
        text = f"rank {rank}: {billions(states)} per state, projections {billions(projections)}"
        return own * (kind.states * states + projections) + edges, text

    # what a micro-batch needs

    def _activations(self) -> Iterator[Term]:
        settings, architecture, held = self.settings, self.architecture, self.held
        tokens, layers = settings.tokens, architecture.layers
        cost = layer_cost(architecture, settings, held)
        source = "saved tensors of transformers 5.16.1, measured; arXiv 2205.05198"
        if settings.checkpointing == "none":
            yield Term("activations", "activations", int(tokens * layers * cost.saved),
                       f"{tokens} tokens x {layers} layers x {cost.saved:,.0f} B", source,
                       ("forward", "loss", "backward"))  # fmt: skip
            yield Term("activations", "one layer", int(tokens * cost.saved),
                       f"{tokens} tokens x {cost.saved:,.0f} B", source,
                       ("gradients",))  # fmt: skip
        else:
            size = held.residual * architecture.hidden
            yield Term("activations", "inputs of the layers", tokens * layers * size,
                       f"{tokens} tokens x {layers} layers x {size:,} B",
                       "gradient checkpointing keeps each layer's input (arXiv 1604.06174)",
                       ("forward", "loss", "backward"),
                       host=settings.checkpointing == "offload")  # fmt: skip
            yield Term("activations", "one layer, recomputed", int(tokens * cost.saved),
                       f"{tokens} tokens x {cost.saved:,.0f} B", source,
                       ("backward", "gradients"))  # fmt: skip
        yield Term("activations", "gradients within a layer", int(tokens * cost.backward),
                   f"{tokens} tokens x {cost.backward:,.0f} B", "largest at the MLP, measured",
                   ("backward", "gradients"))  # fmt: skip
        yield from self._casts()
        yield from self._mask()

    def _casts(self) -> Iterator[Term]:
        """16-bit copies of float32 weights, and 16-bit forms of quantized ones."""
        numbers, settings, held = self.numbers, self.settings, self.held
        if numbers.quantized:
            largest = max(m.inputs * m.outputs for m in self.architecture.linear if m.module)
            yield Term("activations", "a dequantized matrix", largest * settings.compute,
                       f"{billions(largest)} x {settings.compute} B",
                       "bitsandbytes MatMul4Bit: one at a time",
                       ("forward", "loss", "backward", "gradients"))  # fmt: skip
        if settings.compute == 4 or self.layout.kind in ("zero", "fsdp"):
            return
        source = "torch.autocast casts a float32 weight once per forward pass and keeps the copy"
        checkpointed = settings.checkpointing != "none"
        if held.casts and settings.lora is None:
            yield Term("activations", "16-bit copies of the weights", 2 * numbers.layers,
                       f"{billions(numbers.layers)} x 2 B", source,
                       ("forward",) if checkpointed else ("forward", "loss", "backward"),
                       )  # fmt: skip
        if held.edges == 4:
            yield Term("activations", "16-bit copy of lm_head", 2 * self.architecture.head,
                       f"{billions(self.architecture.head)} x 2 B", source,
                       ("forward", "loss"))  # fmt: skip

    def _mask(self) -> Iterator[Term]:
        settings = self.settings
        if settings.attention == "flash":
            return
        rows = settings.micro_batch * settings.sequences
        yield Term("activations", "attention mask", 3 * rows * settings.sequence**2,
                   f"{rows} rows x {settings.sequence}^2 x 3 B",
                   "transformers masking_utils: boolean, and one in the computation's type",
                   ("forward", "loss", "backward", "gradients"))  # fmt: skip

    def _loss(self) -> Iterator[Term]:
        settings, architecture = self.settings, self.architecture
        tokens, vocabulary, hidden = settings.tokens, architecture.vocabulary, architecture.hidden
        compute = settings.compute
        around = (8 + 2 * compute) * hidden
        yield Term("logits and loss", "last norm and lm_head's input", tokens * around,
                   f"{tokens} tokens x {around:,} B", "saved tensors, measured",
                   ("forward", "loss"))  # fmt: skip
        if settings.loss == "plain":
            forward = 10 if compute == 2 else 8
            text = f"{tokens} tokens x {vocabulary:,} x"
            yield Term("logits and loss", "logits", forward * tokens * vocabulary,
                       f"{text} {forward} B (16 bit, float32 copy, log-softmax)",
                       "transformers ForCausalLMLoss upcasts to float32", ("forward",))  # fmt: skip
            yield Term("logits and loss", "gradient of the logits", 12 * tokens * vocabulary,
                       f"{text} 12 B (log-softmax and two gradients in float32)",
                       "torch cross_entropy, measured", ("loss",))  # fmt: skip
        elif settings.loss == "in place":
            yield Term("logits and loss", "logits", 6 * tokens * vocabulary,
                       f"{tokens} tokens x {vocabulary:,} x 6 B",
                       "Liger cross entropy writes the gradient over the logits",
                       ("forward", "loss"))  # fmt: skip
        elif settings.loss == "chunked":
            pieces = -(-vocabulary // hidden)
            chunk = 1 << max(0, (-(-tokens // pieces) - 1)).bit_length()
            yield Term("logits and loss", "logits of a piece", 10 * chunk * vocabulary,
                       f"{chunk} tokens x {vocabulary:,} x 10 B",
                       "Liger fused linear cross entropy (arXiv 2410.10989): pieces of "
                       "tokens x hidden / vocabulary", ("forward",))  # fmt: skip
            if settings.lora is None:
                yield Term("logits and loss", "gradient of lm_head", architecture.head * 4,
                           f"{billions(architecture.head)} x 4 B",
                           "Liger fused linear cross entropy accumulates it in the forward pass",
                           ("forward", "loss"))  # fmt: skip
        else:
            yield Term("logits and loss", "logits of a tile", 4 * tokens * 4,
                       f"{tokens} tokens x 16 B", "cut cross entropy (arXiv 2411.09009)",
                       ("forward", "loss"))  # fmt: skip

    # what sharding needs

    def _sharding_buffers(self) -> Iterator[Term]:
        layout = self.layout
        if layout.kind == "fsdp":
            layer = self.architecture.largest_layer
            size = self.settings.compute
            yield Term("sharding", "two whole layers", 2 * layer * size,
                       f"2 x {billions(layer)} x {size} B",
                       "FSDP 2 gathers a layer and the next one ahead (arXiv 2304.11277)",
                       ("forward", "loss", "backward", "gradients"))  # fmt: skip
            yield Term("sharding", "gradients of a whole layer", 2 * layer * size,
                       f"2 x {billions(layer)} x {size} B", "reduce-scatter of a layer",
                       ("backward", "gradients"))  # fmt: skip
        elif layout.kind == "zero" and layout.stage == 3:
            yield from self._stage_three()
        elif layout.kind == "zero":
            yield from self._stages_one_and_two()

    def _bucket(self, name: str, default: int) -> int:
        return dict(self.layout.buckets).get(name, default)

    def _stages_one_and_two(self) -> Iterator[Term]:
        size, trained = self.settings.compute, self.numbers.trained
        bucket = min(self._bucket("reduce_bucket_size", 500_000_000), trained)
        if self.layout.stage == 2:
            yield Term("sharding", "reduce bucket", bucket * size, f"{billions(bucket)} x {size} B",
                       "DeepSpeed reduce_bucket_size, default 5e8 (contiguous_gradients)",
                       ("backward", "gradients"))  # fmt: skip
        gather = min(self._bucket("allgather_bucket_size", 500_000_000), trained)
        yield Term("sharding", "all-gather bucket", gather * size, f"{billions(gather)} x {size} B",
                   "DeepSpeed allgather_bucket_size, default 5e8", ("step",))  # fmt: skip

    def _stage_three(self) -> Iterator[Term]:
        architecture, size = self.architecture, self.settings.compute
        cut = architecture.parameters - self.numbers.quantized
        square = architecture.hidden**2
        live = min(self._bucket("stage3_max_live_parameters", 1_000_000_000), cut)
        live = max(live, min(2 * architecture.largest_layer, cut))
        during: tuple[Moment, ...] = ("forward", "loss", "backward", "gradients")
        yield Term("sharding", "gathered weights", live * size, f"{billions(live)} x {size} B",
                   "DeepSpeed stage3_max_live_parameters, at least two layers", during)  # fmt: skip
        prefetch = self._bucket("stage3_prefetch_bucket_size", int(0.9 * square))
        yield Term("sharding", "prefetch bucket", prefetch * size,
                   f"{billions(prefetch)} x {size} B",
                   "DeepSpeed stage3_prefetch_bucket_size, auto: 0.9 x hidden^2",
                   during)  # fmt: skip
        bucket = self._bucket("reduce_bucket_size", square)
        yield Term("sharding", "reduce bucket", 2 * bucket * size,
                   f"2 x {billions(bucket)} x {size} B",
                   "DeepSpeed reduce_bucket_size, auto: hidden^2")  # fmt: skip

    # host memory of one node

    def _host(self) -> Iterator[Term]:
        layout, numbers = self.layout, self.numbers
        here = max(1, layout.gpus // max(layout.nodes, 1))
        yield Term("host", "processes", here * PROCESS, f"{here} x {PROCESS / GIB:.1f} GiB",
                   "Python, torch with CUDA, the backend, its data: an allowance",
                   host=True)  # fmt: skip
        loaded = self.architecture.parameters * 2
        copies = here if layout.kind == "zero" and layout.stage == 3 else 0
        if layout.kind == "fsdp":
            copies = 1 if self.settings.quantization != "nf4" else here
        if copies:
            yield Term("host", "loading", loaded * copies,
                       f"{billions(self.architecture.parameters)} x 2 B x {copies}",
                       "each process of ZeRO-3 reads the whole checkpoint; FSDP with "
                       "cpu_ram_efficient_loading only the first", host=True)  # fmt: skip
        if layout.offload != "none" and layout.kind == "zero":
            pinned = 4 * numbers.trained // max(layout.nodes, 1)
            yield Term("host", "pinned buffers of the offload", pinned,
                       f"{billions(numbers.trained)} x 4 B per node",
                       "DeepSpeed: gradients in float32, pinned", host=True)  # fmt: skip
