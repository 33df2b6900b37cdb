"""Terms that are there all the time: weights, gradients, optimizer states."""

from collections.abc import Iterator
from typing import Literal

from orchestrator.memory.counting import Run
from orchestrator.memory.optimizers import LAYERWISE, Optimizer
from orchestrator.memory.term import ALWAYS, LATE, Term, billions


def weights(run: Run) -> Iterator[Term]:
    """The base with its quantization constants, the reference model, the LoRA."""
    numbers, held, settings = run.numbers, run.held, run.settings
    parts, note = _parts(run, "weights")
    offload = run.layout.moves_weights
    for name, count, size in (
        ("weights of the layers", numbers.layers, held.layers),
        ("embeddings, lm_head, norms", numbers.edges, held.edges),
    ):
        yield Term(
            "weights", name, count * size // parts,
            f"{billions(count)} x {size} B{note}", held.source, host=offload,
        )  # fmt: skip
    if numbers.quantized:
        yield from _quantized(run)
    if settings.reference:
        yield Term(
            "weights", "reference model",
            run.architecture.parameters * settings.compute // parts,
            f"{billions(run.architecture.parameters)} x {settings.compute} B{note}",
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


def _quantized(run: Run) -> Iterator[Term]:
    """A quantized base is whole on every GPU: ZeRO-3 does not cut it (InternLM/xtuner 88)."""
    count, settings = run.numbers.quantized, run.settings
    parts = run.layout.shares("weights") if run.layout.kind == "fsdp" else 1
    if settings.quantization == "int8":
        rows = sum(m.outputs * m.count for m in run.architecture.linear if m.module)
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


def _parts(run: Run, what: Literal["weights", "gradients", "optimizer"]) -> tuple[int, str]:
    parts = run.layout.shares(what)
    return parts, f" / {parts} GPUs" if parts > 1 else ""


def _trained_bytes(run: Run) -> int:
    """Bytes of what is trained, in the types of its parameters."""
    numbers, held = run.numbers, run.held
    return (
        numbers.trained_layers * held.layers
        + numbers.trained_edges * held.edges
        + (numbers.lora + numbers.saved) * held.lora
    )


def _largest_update(run: Run) -> int:
    """Bytes of gradients at once where each layer is updated as soon as it has them."""
    numbers, held = run.numbers, run.held
    layers = numbers.trained_layers * held.layers + numbers.lora * held.lora
    edges = numbers.trained_edges * held.edges + numbers.saved * held.lora
    return max(layers // max(run.architecture.layers, 1), edges)


def gradients(run: Run) -> Iterator[Term]:
    """Gradients, and what DDP copies them into."""
    layout, size = run.layout, _trained_bytes(run)
    if run.settings.optimizer in LAYERWISE and layout.kind == "one":
        yield Term("gradients", "gradients of a layer", _largest_update(run),
                   "a layer, or the embeddings if they are larger",
                   f"{run.settings.optimizer} updates within the backward pass",
                   ("backward", "gradients"))  # fmt: skip
        return
    parts, note = _parts(run, "gradients")
    # with one forward pass per step they are set to None before the next one
    kept = run.settings.accumulation > 1 or (layout.kind == "zero" and layout.stage == 3)
    offloaded, count = layout.moves_states, run.numbers.trained
    yield Term(
        "gradients", "gradients", size // parts, f"{billions(count)} in their own type{note}",
        "torch keeps a gradient in its parameter's type; the trainer sets it to None after "
        "each step", ALWAYS if kept else LATE, host=offloaded,
    )  # fmt: skip
    if layout.kind == "ddp":
        yield Term("gradients", "DDP buckets", size, f"{billions(count)} in their own type",
                   "DistributedDataParallel copies gradients into buckets unless "
                   "gradient_as_bucket_view")  # fmt: skip


def states(run: Run) -> Iterator[Term]:
    """Optimizer states, DeepSpeed's master weights, and what a step needs for a moment."""
    parts, note = _parts(run, "optimizer")
    numbers, held, layout = run.numbers, run.held, run.layout
    offloaded = layout.moves_states
    source = (
        "torch.zeros_like(parameter)"
        if run.optimizer.store == "own"
        else (
            "bitsandbytes.optim"
            if run.optimizer.store in ("8bit", "float32")
            else "its paper and code"
        )
    )
    size, formula = _state_bytes(run)
    yield Term("optimizer", f"states of {run.settings.optimizer}", int(size) // parts,
               formula + note, source, host=offloaded)  # fmt: skip
    if held.master and run.settings.compute == 2:
        count = numbers.trained
        yield Term("optimizer", "float32 master weights", 4 * count // parts,
                   f"{billions(count)} x 4 B{note}", "DeepSpeed fp32_groups_flat",
                   host=offloaded)  # fmt: skip
        step = min(count // parts, 10**9) if layout.stage == 3 else count // parts
        yield Term("optimizer", "float32 gradients of the step", 4 * step,
                   f"{billions(step)} x 4 B", "DeepSpeed: the averaged gradients are cast for "
                   "the step (18 B in its estimators)", ("step",), host=offloaded)  # fmt: skip
    if run.optimizer.temporary and not offloaded:
        one = 4 * numbers.trained if held.master else _trained_bytes(run)
        yield Term("optimizer", "temporary of the step", one // parts,
                   "a copy of one state", "torch foreach optimizers compute the denominator "
                   "of all parameters at once; measured", ("step",))  # fmt: skip


def _state_bytes(run: Run) -> tuple[float, str]:
    """Bytes of the states of all GPUs together, and how they are counted."""
    numbers, kind, held = run.numbers, run.optimizer, run.held
    if held.master:  # flat float32 partitions, which have no embeddings and no rows any more
        if kind.store in ("factored", "projected"):
            kind = Optimizer(1 if kind.store == "factored" else 2, "float32")
        size = kind.per_parameter(4)
        return size * numbers.trained, f"{billions(numbers.trained)} x {size:.3g} B"
    if kind.store == "8bit" and numbers.trained_edges:
        embedded = run.architecture.embedding
        rest = numbers.trained - embedded
        size = kind.per_parameter(4)
        text = f"{billions(rest)} x {size:.3g} B + embeddings x {kind.states * 4:.3g} B"
        return rest * size + embedded * kind.states * 4, text
    if kind.store in ("factored", "projected", "muon"):
        return _structured(run, kind)
    sizes = (
        (numbers.trained_layers, kind.per_parameter(held.layers)),
        (numbers.trained_edges, kind.per_parameter(held.edges)),
        (numbers.lora + numbers.saved, kind.per_parameter(held.lora)),
    )
    text = " + ".join(f"{billions(n)} x {size:.3g} B" for n, size in sizes if n)
    return sum(n * size for n, size in sizes), text


def _structured(run: Run, kind: Optimizer) -> tuple[float, str]:
    """States that depend on the matrices' shapes."""
    architecture, settings = run.architecture, run.settings
    if settings.lora is not None or settings.trained_share < 1:
        size = max(kind.states, 1) * 4
        return size * run.numbers.trained, f"{billions(run.numbers.trained)} x {size:.3g} B"
    edges = 2.0 * run.numbers.edges * run.held.edges
    if kind.store == "factored":
        rows = sum(m.count * (m.inputs + m.outputs) for m in architecture.matrices)
        rows += architecture.vocabulary + architecture.hidden
        return 4.0 * rows, f"{billions(rows)} rows and columns x 4 B"
    if kind.store == "muon":
        inner = sum(m.weights for m in architecture.linear) * kind.states * run.held.layers
        return inner + edges, "one momentum per matrix; two states for the rest"
    rank, own = settings.projection_rank, run.held.layers
    states = sum(m.count * rank * max(m.inputs, m.outputs) for m in architecture.linear)
    projections = sum(m.count * rank * min(m.inputs, m.outputs) for m in architecture.linear)
    if settings.optimizer.startswith("apollo"):
        projections = 0  # made again from a seed
    text = f"rank {rank}: {billions(states)} per state, projections {billions(projections)}"
    return own * (kind.states * states + projections) + edges, text
