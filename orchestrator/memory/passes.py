"""Terms of a forward and backward pass: activations, casts, masks, logits."""

from collections.abc import Iterator

from orchestrator.memory.activations import layer_cost
from orchestrator.memory.counting import Run
from orchestrator.memory.term import Term, billions


def activations(run: Run) -> Iterator[Term]:
    """What a forward pass keeps for its backward pass, and what that needs beside it."""
    settings, architecture, held = run.settings, run.architecture, run.held
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
    yield from _casts(run)
    yield from _mask(run)


def _casts(run: Run) -> Iterator[Term]:
    """16-bit copies of float32 weights, and 16-bit forms of quantized ones."""
    numbers, settings, held = run.numbers, run.settings, run.held
    if numbers.quantized:
        largest = max(m.inputs * m.outputs for m in run.architecture.linear if m.module)
        yield Term("activations", "a dequantized matrix", largest * settings.compute,
                   f"{billions(largest)} x {settings.compute} B",
                   "bitsandbytes MatMul4Bit: one at a time",
                   ("forward", "loss", "backward", "gradients"))  # fmt: skip
    if settings.compute == 4 or run.layout.kind in ("zero", "fsdp"):
        return
    source = "torch.autocast casts a float32 weight once per forward pass and keeps the copy"
    checkpointed = settings.checkpointing != "none"
    if held.casts and settings.lora is None:
        yield Term("activations", "16-bit copies of the weights", 2 * numbers.layers,
                   f"{billions(numbers.layers)} x 2 B", source,
                   ("forward",) if checkpointed else ("forward", "loss", "backward"),
                   )  # fmt: skip
    if held.edges == 4:
        yield Term("activations", "16-bit copy of lm_head", 2 * run.architecture.head,
                   f"{billions(run.architecture.head)} x 2 B", source,
                   ("forward", "loss"))  # fmt: skip


def _mask(run: Run) -> Iterator[Term]:
    settings = run.settings
    if settings.attention == "flash":
        return
    rows = settings.micro_batch * settings.sequences
    yield Term("activations", "attention mask", 3 * rows * settings.sequence**2,
               f"{rows} rows x {settings.sequence}^2 x 3 B",
               "transformers masking_utils: boolean, and one in the computation's type",
               ("forward", "loss", "backward", "gradients"))  # fmt: skip


def loss(run: Run) -> Iterator[Term]:
    """From the last norm to the gradient of the logits."""
    settings, architecture = run.settings, run.architecture
    tokens, vocabulary, hidden = settings.tokens, architecture.vocabulary, architecture.hidden
    compute = settings.compute
    around = (8 + 2 * compute) * hidden
    yield Term("logits and loss", "last norm and lm_head's input", tokens * around,
               f"{tokens} tokens x {around:,} B", "saved tensors, measured",
               ("forward", "loss"))  # fmt: skip
    if settings.loss == "plain":
        cap = 2 if architecture.softcap else 0
        forward = (10 if compute == 2 else 8) + cap
        backward = 12 + 2 * cap
        text = f"{tokens} tokens x {vocabulary:,} x"
        yield Term("logits and loss", "logits", forward * tokens * vocabulary,
                   f"{text} {forward} B (16 bit, float32 copy, log-softmax)",
                   "transformers ForCausalLMLoss upcasts to float32", ("forward",))  # fmt: skip
        yield Term("logits and loss", "gradient of the logits", backward * tokens * vocabulary,
                   f"{text} {backward} B (log-softmax and two gradients in float32)",
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
