"""How the parameters of a model split up under the settings: held how, trained or not."""

from dataclasses import dataclass

from orchestrator.memory.layout import Layout
from orchestrator.memory.model import Architecture
from orchestrator.memory.optimizers import Optimizer
from orchestrator.memory.precision import Precision
from orchestrator.memory.settings import Settings


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


@dataclass(frozen=True, slots=True)
class Run:
    """All that the terms of one run are made of."""

    architecture: Architecture
    settings: Settings
    layout: Layout
    held: Precision
    numbers: Counted
    optimizer: Optimizer
