"""What a scan of prepared data collects."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from orchestrator.labels.vocabulary import Ints

KEPT = 10
"""Rows that are named in a finding."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe and the model say about the tokens.

    `cutoff` is the longest sequence in tokens; `embedding` the rows of the embedding, 0 if that is
    not known; `masked` whether prompts should not be trained; `judged` whether rows have roles.
    """

    cutoff: int
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    embedding: int = 0
    masked: bool = True
    judged: bool = True
    packed: bool = False


@dataclass
class Hits:
    """The rows that a rule is about, with the first ones and their tokens.

    `tokens` counts offending tokens or turns; `worst` is the row with most of them.
    """

    tokens: int = 0
    first: list[tuple[int, str, int]] = field(default_factory=list)
    worst: tuple[int, int] = (-1, 0)
    notes: Counter[str] = field(default_factory=Counter)
    rows: list[Ints] = field(default_factory=list)

    def add(self, rows: Ints, part: str, tokens: Ints) -> None:
        """Offending tokens (`-1`: the row as a whole), with the row of each."""
        if not len(rows):
            return
        unique, places, counts = np.unique(rows, return_index=True, return_counts=True)
        self.tokens += len(rows)
        self.rows.append(unique)
        for at in places[: max(KEPT - len(self.first), 0)].tolist():
            self.first.append((int(rows[at]), part, int(tokens[at])))
        most = int(np.argmax(counts))
        if counts[most] > self.worst[1]:
            self.worst = (int(unique[most]), int(counts[most]))


@dataclass
class PartFacts:
    """Arrays with one entry per sequence of a part."""

    lengths: list[Ints] = field(default_factory=list)
    padding: list[Ints] = field(default_factory=list)
    trained: list[Ints] = field(default_factory=list)
    rows: list[Ints] = field(default_factory=list)
    origins: list[Ints] = field(default_factory=list)
    hashes: list[Ints] = field(default_factory=list)


@dataclass
class Scanned:
    """Everything that one pass over the data found."""

    parts: dict[str, PartFacts] = field(default_factory=dict)
    hits: dict[str, Hits] = field(default_factory=dict)
    stops: Counter[int] = field(default_factory=Counter)
    stops_untrained: Counter[int] = field(default_factory=Counter)
    turns: int = 0
    turns_judged: int = 0
    stop_missing: int = 0
    bos: int = 0
    traced: int = 0
    exact: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    before_answer: Counter[int] = field(default_factory=Counter)
    at_limit: list[tuple[int, str, int, int]] = field(default_factory=list)
    """Answers in rows at the limit: row, part, first token, and the id before it."""
    tokens: int = 0
    text_bytes: int = 0
    searched: int = 0

    def hit(self, code: str) -> Hits:
        """The hits of a rule."""
        return self.hits.setdefault(code, Hits())
