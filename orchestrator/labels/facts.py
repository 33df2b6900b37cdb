"""What is judged, and the facts about it, before anybody judges them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.labels.prepared import Prepared
from orchestrator.labels.vocabulary import Ints
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged: the recipe and what its preprocessing left.

    `sources` are absolute paths or hub ids, in the recipe's order; `base` is the base model's
    folder, empty if it is not on this machine.
    """

    recipe: Recipe
    dataset: Path
    tokenizer: Path
    validation: Path | None = None
    sources: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    base: str = ""

    @property
    def prepared(self) -> Prepared:
        """The training data."""
        return Prepared(self.dataset, self.tokenizer)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source: its rows, those that were found in the prepared data, and their tokens."""

    name: str
    rows: int
    prepared: int
    tokens: int
    trained_tokens: int


@dataclass
class Facts:
    """What is true of the prepared data. Lengths are in tokens, shares between 0 and 1."""

    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    shortest: int = 0
    median: float = 0.0
    longest: int = 0
    percentiles: dict[str, int] = field(default_factory=dict)
    sequence_length: int = 0
    traced: int = 0
    exact: int = 0
    traceable: bool = False
    turns: int = 0
    turns_judged: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    stops_untrained: dict[str, int] = field(default_factory=dict)
    stop_missing: int = 0
    known_stops: list[int] | None = None
    starts_with_bos: int = 0
    cut: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    dropped_reasons: dict[str, int] = field(default_factory=dict)
    dropped_places: list[str] = field(default_factory=list)
    source_rows: int = 0
    validation_rows: int = 0
    leaked: int = 0
    masked: bool = True
    sources: list[SourceFacts] = field(default_factory=list)
    template: dict[str, Any] | None = None
    base_template: dict[str, Any] | None = None
    compared: int = 0
    refused: int = 0
    """Conversations held against the chat template, and those that it does not take."""
    hits: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end at least one in twenty answers."""
        every = sum(self.stops.values())
        return sorted(int(token) for token, count in self.stops.items() if count * 20 >= every > 0)

    @property
    def ends_with_stop(self) -> float:
        """Share of the answers that end with a trained stop token."""
        ended = sum(self.stops.values())
        of = ended + sum(self.stops_untrained.values()) + self.stop_missing
        return round(ended / of, 6) if of else 0.0


@dataclass(frozen=True, slots=True)
class Sequences:
    """One entry per sequence of one part: its row, length, padding in that, trained tokens, source
    row (-1: not found), and file number and line of that."""

    part: str
    rows: Ints
    lengths: Ints
    padding: Ints
    trained: Ints
    origins: Ints
    files: Ints
    lines: Ints

    @property
    def sizes(self) -> Ints:
        """Tokens without padding."""
        sizes: Ints = self.lengths - self.padding
        return sizes


@dataclass(frozen=True, slots=True)
class Gathered:
    """Facts, and what they are about row by row."""

    facts: Facts
    parts: tuple[Sequences, ...]
    files: tuple[tuple[str, bool], ...]
    """Source files, and whether their rows are lines."""
    failing: dict[str, Ints]
    """The rows that each rule is about."""
