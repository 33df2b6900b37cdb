"""A term of an estimate, and the estimate: terms, and the moment at which they are most."""

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.memory.gpus import GIB
from orchestrator.memory.layout import Layout

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


def billions(number: float) -> str:
    """A count as people write it."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
