"""What fits on which GPUs: the layouts one can choose from, and the largest batch and length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.checks.sharding import BITSANDBYTES, EIGHT_BIT_OPTIMIZERS
from orchestrator.memory.estimate import estimate
from orchestrator.memory.gpus import Gpus
from orchestrator.memory.layout import Layout
from orchestrator.memory.model import Architecture
from orchestrator.memory.settings import Settings
from orchestrator.memory.term import Estimate

LARGEST_BATCH = 1024
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """A layout with its estimate; `refused` says why it cannot be used, if so.

    `crowded_host`: the GPUs would do, but not the memory of their node.
    """

    estimate: Estimate
    fits: bool | None
    refused: str = ""
    crowded_host: bool = False

    @property
    def layout(self) -> Layout:
        """How it is spread."""
        return self.estimate.layout

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **self.estimate.as_dict(),
            "fits": self.fits,
            "refused": self.refused or None,
            "host_memory_too_small": self.crowded_host,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The answers of a memory plan. Without `gpus` nothing is said to fit."""

    architecture: Architecture
    settings: Settings
    own: Choice
    choices: tuple[Choice, ...]
    gpus: Gpus | None

    @property
    def smallest(self) -> Choice | None:
        """The first layout that fits, in the order of `layouts`: the one that costs least time."""
        return next((c for c in self.choices if c.fits and not c.refused), None)

    @property
    def chosen(self) -> Choice:
        """The recipe's own layout where it fits, else the smallest that does, else its own."""
        return self.own if self.own.fits or not self.smallest else self.smallest

    def largest_batch(self) -> int:
        """The largest micro batch that fits under the chosen layout; 0: not even one row."""
        if self.gpus is None:
            return 0
        return largest_batch(self.architecture, self.settings, self.chosen.layout, self.gpus)

    def longest(self) -> int:
        """The longest sequence that fits under the chosen layout, in steps of 256; 0: none."""
        if self.gpus is None:
            return 0
        return longest(self.architecture, self.settings, self.chosen.layout, self.gpus)

    def longer(self, factors: Sequence[int] = (2, 4, 8)) -> list[tuple[int, int]]:
        """Longer sequences and the bytes of a GPU that they need under the chosen layout."""
        found = []
        for factor in factors:
            sequence = self.settings.sequence * factor
            if self.architecture.context and sequence > self.architecture.context:
                break
            changed = replace(self.settings, sequence=sequence)
            found.append((sequence, estimate(self.architecture, changed, self.chosen.layout).total))
        return found


def layouts(gpus: int, nodes: int = 1) -> tuple[Layout, ...]:
    """All layouts for so many GPUs, those that cost less time first."""
    if gpus == 1:
        return (
            Layout("one", 1),
            Layout("zero", 1, 2, "optimizer"),
            Layout("zero", 1, 3, "all"),
        )
    return (
        Layout("ddp", gpus, nodes=nodes),
        Layout("zero", gpus, 1, nodes=nodes),
        Layout("zero", gpus, 2, nodes=nodes),
        Layout("zero", gpus, 3, nodes=nodes),
        Layout("fsdp", gpus, 3, nodes=nodes),
        Layout("zero", gpus, 2, "optimizer", nodes),
        Layout("zero", gpus, 3, "all", nodes),
    )


def refused(layout: Layout, settings: Settings) -> str:
    """Why a layout cannot be used with these settings; empty if it can (see `FT215`)."""
    if layout.stage == 3 and settings.quantization == "int8":
        return "not with 8-bit weights"
    if layout.moves_states and settings.optimizer in EIGHT_BIT_OPTIMIZERS:
        return "not with 8-bit states"
    second = layout.kind == "fsdp" and layout.version == 2
    if second and settings.optimizer in BITSANDBYTES:
        return "not with bitsandbytes"
    return ""


def choice(
    architecture: Architecture,
    settings: Settings,
    layout: Layout,
    gpus: Gpus | None,
    host: int | None = None,
) -> Choice:
    """One layout, and whether it fits: on the GPU and, if `host` bytes are known, in its node."""
    found = estimate(architecture, settings, layout)
    if gpus is None:
        return Choice(found, None, refused(layout, settings))
    room, crowded = found.total <= gpus.usable, host is not None and found.host > host
    return Choice(found, room and not crowded, refused(layout, settings), room and crowded)


def plan(
    architecture: Architecture,
    settings: Settings,
    own: Layout,
    gpus: Gpus | None,
    host: int | None = None,
) -> Plan:
    """The recipe's own layout, and all others for as many GPUs."""
    world, nodes = (gpus.total, gpus.nodes) if gpus else (own.gpus, own.nodes)
    same = {(own.name, own.gpus): own}  # with the buckets of its own configuration
    return Plan(
        architecture,
        settings,
        choice(architecture, settings, own, gpus, host),
        tuple(
            choice(architecture, settings, same.get((one.name, one.gpus), one), gpus, host)
            for one in layouts(world, nodes)
        ),
        gpus,
    )


def largest_batch(
    architecture: Architecture, settings: Settings, layout: Layout, gpus: Gpus
) -> int:
    """The largest micro batch that fits; 0: not even one row."""
    return _largest(
        lambda n: _fits(architecture, replace(settings, micro_batch=n), layout, gpus), LARGEST_BATCH
    )


def longest(architecture: Architecture, settings: Settings, layout: Layout, gpus: Gpus) -> int:
    """The longest sequence that fits, a multiple of 256 within the model's context; 0: none."""
    limit = (architecture.context or LONGEST) // 256
    found = _largest(
        lambda n: _fits(architecture, replace(settings, sequence=256 * n), layout, gpus), limit
    )
    return 256 * found


def _fits(architecture: Architecture, settings: Settings, layout: Layout, gpus: Gpus) -> bool:
    return estimate(architecture, settings, layout).total <= gpus.usable


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that fits; memory never falls with it."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
