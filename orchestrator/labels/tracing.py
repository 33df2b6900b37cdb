"""Which source row a prepared sequence was made of, and where its pieces lie in the text.

Backends shuffle, drop and cut rows and keep no reference, so rows are found by content: wherever a
turn could start (after a line break, a bracket, a colon, a control token, a change of label), the
next bytes are looked up among the first bytes of all pieces.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.labels.sources import ANCHOR, Index

START = re.compile(rb"[\n\]>:]\s*")
WORD = re.compile(rb"\s+")
LEADING = re.compile(rb"\s*")
TRIED = 32
"""Rows of one anchor that are compared in full."""
CLOSING = 64
"""Bytes that a template writes at most behind the last turn."""
OPENINGS = 64
"""Different texts before the first turn that are remembered."""
PATIENCE = 200
"""Failures in a row after which the slow search is given up."""

FULL, CUT, ALTERED = 0, 1, 2
"""A piece is there as it is in the source; its end is missing; only its start is the same."""


class Place(NamedTuple):
    """Where a piece lies in a text, in bytes."""

    piece: int
    start: int
    end: int
    state: int


@dataclass(frozen=True, slots=True)
class Found:
    """A source row and its pieces in a text, in order.

    `missing` counts pieces that are not there; `exact`: every piece is there, whole.
    """

    row: int
    places: tuple[Place, ...]
    missing: int
    exact: bool

    def better(self, other: "Found | None") -> bool:
        """Whether more of the row is there than in another find."""
        return other is None or self._score() > other._score()

    def _score(self) -> tuple[int, int]:
        full = sum(place.state == FULL for place in self.places)
        return full - self.missing, sum(place.end - place.start for place in self.places)


class Tracer:
    """Finds source rows; remembers which ones were found."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.used = bytearray(index.rows)
        self._lengths: dict[bytes, tuple[int, ...]] = {}
        self._cursor: dict[int | bytes, int] = {}
        self._openings: set[bytes] = set()
        self.doubtful = 0
        """Texts whose row was not found, or only one that another text was made of."""
        self._failures = 0

    def trace(self, text: bytes, changes: Iterable[int] = ()) -> Found | None:
        """The row that `text` was made of. `changes` are places where the label changes."""
        leading = LEADING.match(text)
        starts = [leading.end() if leading else 0]
        starts += [match.end() for match in START.finditer(text)]
        found = self._search(text, starts)
        if found is None or not found.exact:
            starts = sorted({*starts, *(self._skip(text, place) for place in changes)})
            again = self._search(text, starts)
            if again and again.better(found):
                found = again
        if found is None and self._failures < PATIENCE:
            starts = sorted({*starts, *(match.end() for match in WORD.finditer(text))})
            found = self._search(text, starts)
            self._failures = 0 if found else self._failures + 1
        if found is None or (not found.exact and self.used[found.row]):
            self.doubtful += 1
        if found:
            self.used[found.row] = 1
            if found.exact and len(self._openings) < OPENINGS:
                self._openings.add(text[: found.places[0].start])
        return found

    @staticmethod
    def _skip(text: bytes, place: int) -> int:
        match = LEADING.match(text, place)
        return match.end() if match else place

    def _search(self, text: bytes, starts: Sequence[int]) -> Found | None:
        best: Found | None = None
        tried: set[int] = set()
        for start in starts:
            for row in self._candidates(text, start):
                if row in tried:
                    continue
                tried.add(row)
                found = self._placed(text, row, starts)
                if found is None:
                    continue
                if found.better(best):
                    best = found
                if self._covers(found, text):
                    return found
            if len(tried) > TRIED * 4:
                break
        return best

    def _covers(self, found: Found, text: bytes) -> bool:
        """Whether a find is surely not just a part of a longer row: it reaches from a known opening
        of the template to the end."""
        if not found.exact or len(text) - found.places[-1].end > CLOSING:
            return False
        return text[: found.places[0].start] in self._openings

    def _candidates(self, text: bytes, start: int) -> list[int]:
        buckets = self.index.buckets
        head = text[start : start + ANCHOR]
        rows = buckets.get(head)
        found = self._narrowed(text, start, head, rows) if rows else []
        for length in self.index.short:
            head = text[start : start + length]
            rows = buckets.get(head) if len(head) == length else None
            if rows:
                found = found + self._narrowed(text, start, head, rows)
        return found

    def _narrowed(self, text: bytes, start: int, head: bytes, rows: list[int]) -> list[int]:
        """Of the rows with an anchor, those whose whole piece is in the text, unused ones first."""
        if len(rows) == 1:
            return rows
        index = self.index
        lengths = self._lengths.get(head)
        if lengths is None:
            lengths = tuple(sorted({index.length[index.anchors[row]] for row in rows}))
            self._lengths[head] = lengths
        same: list[int] = []
        for length in lengths:
            digest = hash(text[start : start + length])
            same += self._unused_first(digest, self.index.by_digest.get(digest, ()))
        return same or self._unused_first(head, rows)

    def _unused_first(self, key: int | bytes, rows: Sequence[int]) -> list[int]:
        cursor = self._cursor.get(key, 0)
        while cursor < len(rows) and self.used[rows[cursor]]:
            cursor += 1
        self._cursor[key] = cursor
        return list(rows[cursor : cursor + TRIED] or rows[:1])

    def _placed(self, text: bytes, row: int, starts: Sequence[int]) -> Found | None:
        index = self.index
        at = missing = 0
        exact = True
        places: list[Place] = []
        for piece in range(index.first[row], index.first[row + 1]):
            place = self._place(text, piece, starts, at)
            if place is None:
                missing += 1
                continue
            whole = place.state == FULL
            places.append(place)
            exact = exact and whole
            at = bisect_left(starts, place.end if whole else place.start + 1, at)
        for number, place in enumerate(places[:-1]):
            if place.state == CUT:  # what follows is another piece, not the rest of this one
                end = min(place.start + len(index.heads[place.piece]), places[number + 1].start)
                places[number] = Place(place.piece, place.start, end, ALTERED)
        return Found(row, tuple(places), missing, exact and not missing) if places else None

    def _place(self, text: bytes, piece: int, starts: Sequence[int], at: int) -> Place | None:
        index = self.index
        head, length, digest = index.heads[piece], index.length[piece], index.digest[piece]
        other = index.other.get(piece)
        partial: Place | None = None
        for number in range(at, len(starts)):
            start = starts[number]
            if text.startswith(head, start):
                if hash(text[start : start + length]) == digest:
                    return Place(piece, start, start + length, FULL)
                if partial is None:
                    if start + length > len(text):
                        partial = Place(piece, start, len(text), CUT)
                    else:
                        partial = Place(piece, start, start + len(head), ALTERED)
            elif other and text.startswith(other[2], start):
                if hash(text[start : start + other[0]]) == other[1]:
                    return Place(piece, start, start + other[0], FULL)
            elif (
                partial is None
                and 0 < len(text) - start < len(head)
                and head.startswith(text[start:])
            ):
                partial = Place(piece, start, len(text), CUT)
        return partial
