"""Which source row a prepared sequence was made of, and where its pieces lie in the text.

Backends shuffle, drop and cut rows and keep no reference, so rows are found by content: wherever a
turn could start (after a line break, a bracket, a colon, a control token, a change of label), the
next bytes are looked up among the first bytes of all pieces.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from orchestrator.labels.joints import EDGE, LEADING, WHITE, Joints, Slot
from orchestrator.labels.sources import ANCHOR, Index

START = re.compile(rb"[\n\]>:]" + WHITE + rb"*")
WORD = re.compile(WHITE + rb"+")
TRIED = 32
"""Rows of one anchor that are compared in full."""
PATIENCE = 200
"""Failures in a row after which the slow search is given up."""
STUDIED = 200
"""Texts that the template is learned from before any is traced."""
STUDIED_BYTES = 2_000_000
"""Bytes of these texts, the short ones first."""
SOUND = 8
"""Rows from which on what was learned is used: a power of two."""
LEARNED = 4000
"""Rows after which the template is known."""
SLOTS = 8
"""Places of one piece that are weighed against each other."""

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
    fits: int = 0
    """How many of the texts around the pieces are the template's, if all pieces are there."""

    def better(self, other: "Found | None") -> bool:
        """Whether more of the row is there than in another find."""
        return other is None or self._score() > other._score()

    def _score(self) -> tuple[int, bool, int, int, int]:
        """Many whole pieces, in their places, up to the end of the text, of many bytes."""
        full = sum(place.state == FULL for place in self.places)
        size = sum(place.end - place.start for place in self.places)
        return full - self.missing, self.exact, self.fits, self.exact * self.places[-1].end, size

    @property
    def covers(self) -> bool:
        """Whether it is surely not just a part of a longer row: all that lies around the pieces is
        what the template writes."""
        return self.exact and self.fits > len(self.places)


class Tracer:
    """Finds source rows; remembers which ones were found."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.used = bytearray(index.rows)
        self._lengths: dict[bytes, tuple[int, ...]] = {}
        self._cursor: dict[int | bytes, int] = {}
        self.doubtful = 0
        """Texts whose row was not found, or only one that another text was made of."""
        self._failures = 0
        self.joints = Joints()

    def learn(self, texts: Sequence[bytes]) -> None:
        """Learn from some texts what the template writes around the pieces."""
        left = STUDIED_BYTES
        for text in sorted(texts[:: -(-len(texts) // STUDIED) or 1], key=len):
            if left < 0 and self.joints.rows >= SOUND:
                break
            left -= len(text)
            found = self._split(text) or self._search(text, self._starts(text))
            if found and found.exact:
                self._study(text, found)
        self.joints.settle()

    def _study(self, text: bytes, found: Found) -> None:
        if self.index.mixed and self.index.whole_digest(found.row) in self.index.mixed:
            return
        places = [place for place in found.places if place.state == FULL]
        roles = [self.index.role[place.piece] for place in places]
        self.joints.add(text, roles, self._slots(text, places))
        rows = self.joints.rows
        if rows >= SOUND and not rows & (rows - 1):
            self.joints.settle()

    def _slots(self, text: bytes, places: Sequence[Place]) -> list[list[Slot]]:
        """For each piece the places where it could lie, with room for the others."""
        wanted = [text[place.start : place.end] for place in places]
        last, latest = len(text), list[int]()
        for piece in reversed(wanted):
            last = max(text.rfind(piece, 0, last), 0)
            latest.append(last)
        starts = self._starts(text)
        slots: list[list[Slot]] = []
        for place, piece, limit in zip(places, wanted, reversed(latest), strict=True):
            low = slots[-1][0][1] if slots else 0
            near = starts[bisect_left(starts, low) :]
            fits = (at for at in near if at <= limit and text.startswith(piece, at))
            whole = ((at, at + len(piece)) for at in fits if not _glued(text, at + len(piece)))
            slots.append(list(islice(whole, SLOTS)) or [(place.start, place.end)])
        return slots

    @staticmethod
    def _starts(text: bytes) -> list[int]:
        leading = LEADING.match(text)
        found = [leading.end() if leading else 0]
        found += [match.end() for match in START.finditer(text)]
        return found

    def _split(self, text: bytes) -> Found | None:
        """The row whose pieces are all that the template has not written."""
        slots = self.joints.split(text)
        if not slots:
            return None
        digest = hash(tuple([hash(text[start:end]) for start, end in slots]))
        rows = self._unused(digest)
        if digest not in self.index.mixed:
            return self._laid(text, rows[0], slots) if rows else None
        laid = (self._laid(text, row, slots) for row in rows)
        return next((found for found in laid if found and found.covers), None)

    def _unused(self, digest: int) -> list[int]:
        """Rows with all these pieces, unused ones first."""
        places, rows = self.index.same(digest), self.index.by_whole
        if len(places) == 1:
            return [rows[places[0]]]
        cursor = self._cursor.get(digest, 0)
        while cursor < len(places) and self.used[rows[places[cursor]]]:
            cursor += 1
        self._cursor[digest] = cursor
        chosen = places[cursor : cursor + TRIED] or places[:TRIED]
        return [rows[place] for place in chosen]

    def _laid(self, text: bytes, row: int, slots: Sequence[Slot]) -> Found | None:
        """A row whose pieces lie in these places."""
        first = self.index.first[row]
        if self.index.first[row + 1] - first != len(slots):
            return None
        places = tuple(Place(first + i, *slot, FULL) for i, slot in enumerate(slots))
        return Found(row, places, 0, True, self._fits(text, places) if self.index.mixed else 0)

    def trace(self, text: bytes, changes: Iterable[int] = ()) -> Found | None:
        """The row that `text` was made of. `changes` are places where the label changes."""
        found = self._split(text)
        if found:
            self.used[found.row] = 1
            return found
        starts = self._starts(text)
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
            if found.exact and self.joints.rows < LEARNED:
                self._study(text, found)
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
                if found.covers:
                    return found
            if len(tried) > TRIED * 4:
                break
        return best

    def _fits(self, text: bytes, places: Sequence[Place]) -> int:
        roles = [self.index.role[place.piece] for place in places]
        return self.joints.fit(text, roles, [(place.start, place.end) for place in places])

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
        before, end = EDGE, 0
        for piece in range(index.first[row], index.first[row + 1]):
            place = self._behind(text, piece, end, before) or self._place(text, piece, starts, at)
            before = index.role[piece]
            if place is None:
                missing += 1
                continue
            whole = place.state == FULL
            places.append(place)
            exact = exact and whole
            end = place.end
            at = bisect_left(starts, place.end if whole else place.start + 1, at)
        for number, place in enumerate(places[:-1]):
            if place.state == CUT:  # what follows is another piece, not the rest of this one
                end = min(place.start + len(index.heads[place.piece]), places[number + 1].start)
                places[number] = Place(place.piece, place.start, end, ALTERED)
        if not places:
            return None
        exact = exact and not missing
        return Found(row, tuple(places), missing, exact, self._fits(text, places) if exact else 0)

    def _behind(self, text: bytes, piece: int, end: int, before: int) -> Place | None:
        """A whole piece that lies where the template has it."""
        index = self.index
        length, digest = index.length[piece], index.digest[piece]
        for start in self.joints.after(text, end, before, index.role[piece]):
            if hash(text[start : start + length]) == digest:
                return Place(piece, start, start + length, FULL)
        return None

    def _place(self, text: bytes, piece: int, starts: Sequence[int], at: int) -> Place | None:
        index = self.index
        head, length, digest = index.heads[piece], index.length[piece], index.digest[piece]
        other = index.other.get(piece)
        partial: Place | None = None
        for number in range(at, len(starts)):
            start = starts[number]
            if text.startswith(head, start):
                if hash(text[start : start + length]) == digest:
                    if _glued(text, start + length):
                        continue
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


def _glued(text: bytes, end: int) -> bool:
    """Whether a word goes on at `end`: what ends there is no whole piece."""
    return text[end - 1 : end].isalnum() and text[end : end + 1].isalnum()
