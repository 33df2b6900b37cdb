"""The bytes of every term of a training run, each with its formula and source.

A peak is a moment, not a sum of maxima: the logits are gone when the optimizer steps, and gradients
are not there yet when the first loss is computed. So every term says at which moments it is held,
and the peak is the largest of the moments.
"""

from dataclasses import replace

from orchestrator.memory import passes, sharding, states
from orchestrator.memory.counting import Run, counted
from orchestrator.memory.layout import Layout
from orchestrator.memory.model import Architecture
from orchestrator.memory.optimizers import optimizer
from orchestrator.memory.precision import precision
from orchestrator.memory.settings import Settings
from orchestrator.memory.term import Estimate

PARTS = (
    states.weights, states.gradients, states.states, passes.activations, passes.loss,
    sharding.buffers, sharding.host,
)  # fmt: skip
"""What makes the terms, in the order in which they are shown."""


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
    if any(mlp.total > 1 for mlp in architecture.mlps):
        notes.append("what experts keep depends on their kernel: counted as grouped matrices")
    run = Run(architecture, settings, layout, held, numbers, kind)
    here = max(1, layout.gpus // max(layout.nodes, 1))
    # what is moved off a GPU lies on its node, beside what the node's other GPUs moved there
    terms = (
        replace(t, bytes=t.bytes * here) if t.host and t.group != "host" else t
        for part in PARTS
        for t in part(run)
    )
    return Estimate(layout, tuple(t for t in terms if t.bytes > 0), tuple(notes))
