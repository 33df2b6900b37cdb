"""Which rows are shown: by number, by name, by text, or those that a finding is about."""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from orchestrator.errors import UsageError
from orchestrator.labels.facts import Sequences
from orchestrator.labels.judge import Report
from orchestrator.labels.vocabulary import Ints

TELLING = "shortest,median,longest,most,least,worst"
NUMBERS = re.compile(r"([0-9]+)(?:-([0-9]+))?")
MANY = 20
"""Rows that a search shows at most."""


def pick_rows(spec: str, report: Report) -> list[int]:
    """Row numbers from `0,5,longest`.

    A word is a number, a range `3-6`, `shortest`, `median`, `longest`, `least` or `most` (trained
    share), or `worst` (the worst row of each finding).

    Raises:
        UsageError: a word that is none of these, or a row that is not there.
    """
    if not report.facts.rows:
        return []
    named = _named(report)
    picked: list[int] = []
    for word in (word.strip() for word in spec.split(",") if word.strip()):
        picked += named[word] if word in named else _numbered(word, named, report.facts.rows)
    return list(dict.fromkeys(picked))


def _numbered(word: str, named: Iterable[str], rows: int) -> range:
    """The rows of `7` or `3-6`."""
    found = NUMBERS.fullmatch(word)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise UsageError(
            f"{word!r} is no row", hint=f"numbers, ranges like 3-6, or {', '.join(named)}"
        )
    if last >= rows:
        raise UsageError(f"there is no row {last}", hint=f"rows go from 0 to {rows - 1}")
    return range(first, last + 1)


def _named(report: Report) -> dict[str, list[int]]:
    part = report.gathered.parts[0]
    order = np.argsort(part.sizes, kind="stable")
    share = np.argsort(part.trained / np.maximum(part.sizes, 1), kind="stable")

    def row(at: Ints) -> list[int]:
        return [int(part.rows[at])]

    return {
        "shortest": row(order[0]),
        "median": row(order[len(order) // 2]),
        "longest": row(order[-1]),
        "most": row(share[-1]),
        "least": row(share[0]),
        "worst": [judged.worst for judged in report.judged if judged.worst >= 0],
    }


def containing(text: str, report: Report, limit: int = MANY) -> tuple[list[int], int]:
    """The first rows whose text contains `text` (any case), and how many there are."""
    wanted = text.casefold()
    vocabulary = report.prepared.vocabulary
    found: dict[int, None] = {}
    for batch in report.prepared.batches():
        for row, start, end in _bounds(batch.rows, batch.offsets):
            if wanted in vocabulary.text(batch.ids[start:end]).casefold():
                found[row] = None
    return list(found)[:limit], len(found)


def _bounds(rows: Ints, offsets: Ints) -> Iterator[tuple[int, int, int]]:
    yield from zip(rows.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)


def failing(report: Report, limit: int = MANY) -> tuple[list[int], int]:
    """The first rows that a finding is about, and how many there are."""
    codes = {finding.code for finding in report.findings if finding.level != "note"}
    arrays = [rows for code, rows in report.gathered.failing.items() if code in codes]
    if not arrays:
        return [], 0
    every = np.unique(np.concatenate(arrays))
    return every[:limit].tolist(), len(every)


def codes_by_row(report: Report) -> dict[int, list[str]]:
    """The codes of the findings that each row is about."""
    found: dict[int, list[str]] = {}
    told = {finding.code for finding in report.findings}
    for code, rows in sorted(report.gathered.failing.items()):
        if code in told:
            for row in rows.tolist():
                found.setdefault(row, []).append(code)
    return found


def places_of(part: Sequences, row: int) -> Sequence[int]:
    """The sequences of a row: one, or several if it is packed."""
    chosen: list[int] = np.flatnonzero(part.rows == row).tolist()
    return chosen
