"""How long the rows are, and what each sequence length would cut and pad.

A sequence length that is too long wastes memory on padding, one that is too short cuts words; the
one suggested is the shortest that keeps 99 % of the rows whole.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator import ui
from orchestrator.labels.judge import Report
from orchestrator.labels.vocabulary import Ints

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99, 100)
STEP = 64
"""Sequence lengths are multiples of this: matrix units work on multiples of 8 to 64."""
KEPT = 0.99


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sequence length: shares of rows and of tokens that it cuts, and of padding."""

    length: int
    cut_rows: float
    cut_tokens: float
    padding: float
    packed_sequences: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of lengths, in tokens."""

    rows: int
    percentiles: dict[str, int]
    candidates: tuple[Candidate, ...]
    suggestion: int
    at_limit: int
    limit: int
    dropped: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "rows": self.rows,
            "percentiles": self.percentiles,
            "candidates": [
                {name: getattr(candidate, name) for name in Candidate.__slots__}
                for candidate in self.candidates
            ],
            "suggestion": self.suggestion,
            "sequence_length": self.limit,
            "at_limit": self.at_limit,
            "dropped": self.dropped,
        }


def measure(report: Report) -> Lengths:
    """The lengths of all sequences, both answers of a pair included."""
    lengths = report.lengths
    limit = report.facts.sequence_length
    if not len(lengths):
        return Lengths(0, {}, (), limit, 0, limit, report.facts.dropped)
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
    fitting = _round_up(int(np.percentile(lengths, KEPT * 100, method="inverted_cdf")))
    tried = sorted({*_powers(int(lengths.max())), fitting, limit})
    return Lengths(
        len(lengths),
        {str(at): int(value) for at, value in zip(PERCENTILES, values, strict=True)},
        tuple(candidate(lengths, length) for length in tried),
        fitting,
        int((lengths >= limit - 1).sum()),
        limit,
        report.facts.dropped,
    )


def _round_up(length: int) -> int:
    return -(-length // STEP) * STEP


def _powers(longest: int) -> list[int]:
    found = [128]
    while found[-1] < longest:
        found.append(found[-1] * 2)
    return found


def candidate(lengths: Ints, length: int) -> Candidate:
    """What a sequence length does to rows of the given lengths.

    Padding is what padding every row to `length` adds, as a share of all positions;
    `packed_sequences` is the least number of packs that hold the rows.
    """
    kept = np.minimum(lengths, length)
    tokens, every = int(kept.sum()), int(lengths.sum())
    return Candidate(
        length,
        round(float((lengths > length).mean()), 4),
        round(1 - tokens / every, 4) if every else 0.0,
        round(1 - tokens / (length * len(lengths)), 4),
        -(-tokens // length),
    )


def show(found: Lengths) -> None:
    """The table for people."""
    ui.table(
        ["percentile", "tokens"],
        [[name, f"{value:,}"] for name, value in found.percentiles.items()],
    )
    rows = [
        [
            f"{one.length:,}" + _mark(one.length, found),
            f"{one.cut_rows:.1%}",
            f"{one.cut_tokens:.1%}",
            f"{one.padding:.1%}",
            f"{one.packed_sequences:,}",
        ]
        for one in found.candidates
    ]
    ui.table(["length", "rows cut", "tokens cut", "padding", "packs"], rows)
    ui.say(f"suggestion: --set data.sequence_length={found.suggestion} (keeps 99% of rows whole)")
    if found.at_limit:
        ui.say(
            f"{found.at_limit:,} rows are as long as the limit of {found.limit:,} and may have "
            "been cut: for their true length, --set data.sequence_length=... higher"
        )
    if found.dropped:
        ui.say(f"{found.dropped:,} source rows were left out and are not counted here")


def _mark(length: int, found: Lengths) -> str:
    words = []
    if length == found.limit:
        words.append("now")
    if length == found.suggestion:
        words.append("suggested")
    return f" ({', '.join(words)})" if words else ""
