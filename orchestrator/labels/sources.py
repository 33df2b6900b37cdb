"""An index of the source rows, by which prepared rows find the row they were made of.

Texts are not kept: a piece is remembered by its length, a hash and its first bytes, so that the
index of a million rows takes some hundred megabytes less than the rows. Python's hash of bytes has
64 bits; two different pieces of the same length and hash would be taken for each other.
"""

import json
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.data_check.reading import READERS, data_files
from orchestrator.data_check.tally import Tally
from orchestrator.hub.cache import Repository, find
from orchestrator.labels.truth import ASSISTANT, Messages, Piece, reader
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sources import is_snapshot

ANCHOR = 24
"""Bytes at the start of a piece that are looked for in prepared text."""
SAMPLES = 12
"""Conversations per source that are kept for the comparison with the chat template."""
UNKNOWN, MASKED, TRAINED = -1, 0, 1
THOUGHT_END = "</think>"


@dataclass(frozen=True, slots=True)
class Origin:
    """A source: what the recipe calls it, and where it lies (empty: not on this machine)."""

    name: str
    source: Source
    files: tuple[Path, ...]
    whole: bool = True
    """Whether all its rows are expected in the prepared data."""


@dataclass
class Index:
    """All rows of all sources for one part (`""`, `chosen`, `rejected`).

    Pieces of row `r` are `first[r]:first[r + 1]`. Empty pieces are left out.
    """

    roles: list[str] = field(default_factory=list)
    first: Any = field(default_factory=lambda: array("q", [0]))
    length: Any = field(default_factory=lambda: array("q"))
    digest: Any = field(default_factory=lambda: array("q"))
    role: Any = field(default_factory=lambda: array("b"))
    expected: Any = field(default_factory=lambda: array("b"))
    heads: list[bytes] = field(default_factory=list)
    other: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    whole: Any = field(default_factory=lambda: array("b"))
    source: Any = field(default_factory=lambda: array("h"))
    line: Any = field(default_factory=lambda: array("q"))
    file: Any = field(default_factory=lambda: array("h"))
    buckets: dict[bytes, list[int]] = field(default_factory=dict)
    by_digest: dict[int, list[int]] = field(default_factory=dict)
    anchors: list[int] = field(default_factory=list)
    short: tuple[int, ...] = ()
    whole_rows: Any = field(default_factory=lambda: array("q"))
    """Hashes of all pieces of a row; sorted by `finish`, and `by_whole` the rows in that order."""
    by_whole: Any = field(default_factory=lambda: array("q"))
    whole_roles: Any = field(default_factory=lambda: array("q"))
    mixed: set[int] = field(default_factory=set)
    """Hashes that rows with other roles share: one without an answer, one without a question."""

    @property
    def rows(self) -> int:
        """Number of source rows."""
        return len(self.first) - 1

    def add(
        self, source: int, file: int, line: int, pieces: Sequence[Piece], whole: bool, form: str
    ) -> None:
        """Append a row."""
        digests: list[int] = []
        roles: list[int] = []
        for piece in pieces:
            content = _bytes(piece.text, form)
            if not content:
                # nothing marks where an empty answer is, whose stop token may be trained
                whole = whole and not piece.trained
                continue
            if piece.role == ASSISTANT and THOUGHT_END in piece.text:
                # templates of reasoning models leave the thoughts of earlier turns out
                rest = _bytes(piece.text.rpartition(THOUGHT_END)[2], form)
                if rest:
                    self.other[len(self.length)] = (len(rest), hash(rest), rest[:ANCHOR])
            self.length.append(len(content))
            digests.append(hash(content))
            roles.append(self._role(piece.role))
            self.heads.append(content[:ANCHOR])
            self.expected.append(UNKNOWN if piece.trained is None else int(piece.trained))
        self.digest.extend(digests)
        self.role.extend(roles)
        self.whole_rows.append(hash(tuple(digests)))
        self.whole_roles.append(hash(tuple(roles)))
        self.first.append(len(self.length))
        self.whole.append(whole)
        self.source.append(source)
        self.file.append(file)
        self.line.append(line)

    def _role(self, name: str) -> int:
        if name not in self.roles:
            self.roles.append(name)
        return self.roles.index(name)

    def finish(self) -> None:
        """Choose for each row the piece that tells it best from the others, and sort rows by it.

        That is the piece whose text the fewest rows share; among equals one that is long enough,
        then the first.
        """
        if not self.length:
            return
        digest = np.frombuffer(self.digest, dtype=np.int64)
        length = np.frombuffer(self.length, dtype=np.int64)
        first = np.frombuffer(self.first, dtype=np.int64)
        _, inverse, counts = np.unique(digest, return_inverse=True, return_counts=True)
        place = np.arange(len(digest)) - np.repeat(first[:-1], np.diff(first))
        rank = (counts[inverse] * 2 + (length < ANCHOR)) * 256 + np.minimum(place, 255)
        filled = np.flatnonzero(np.diff(first) > 0)
        best = np.full(self.rows, -1, dtype=np.int64)
        lowest = np.minimum.reduceat(rank, first[filled])
        rows = np.repeat(np.arange(self.rows), np.diff(first))
        wanted = np.zeros(self.rows, dtype=np.int64)
        wanted[filled] = lowest
        hits = np.flatnonzero(rank == wanted[rows])[::-1]
        best[rows[hits]] = hits  # the first of a row is written last
        self.anchors = best.tolist()
        for row, piece in enumerate(self.anchors):
            if piece < 0:
                continue
            self.buckets.setdefault(self.heads[piece], []).append(row)
            if piece in self.other:
                self.buckets.setdefault(self.other[piece][2], []).append(row)
        for bucket in self.buckets.values():
            if len(bucket) > 1:
                for row in bucket:
                    self.by_digest.setdefault(int(digest[self.anchors[row]]), []).append(row)
        self._sort()
        self.short = tuple(sorted({len(head) for head in self.buckets if len(head) < ANCHOR}))

    def _sort(self) -> None:
        hashes = np.frombuffer(self.whole_rows, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        self.by_whole = array("q", order.tobytes())
        hashes, roles = hashes[order], np.frombuffer(self.whole_roles, dtype=np.int64)[order]
        other = (hashes[1:] == hashes[:-1]) & (roles[1:] != roles[:-1])
        self.mixed = set(hashes[1:][other].tolist())
        self.whole_rows, self.whole_roles = array("q", hashes.tobytes()), array("q")

    def whole_digest(self, row: int) -> int:
        """The hash of all pieces of a row."""
        return hash(tuple(self.digest[self.first[row] : self.first[row + 1]]))

    def same(self, digest: int) -> range:
        """The places in `by_whole` of the rows with all these pieces."""
        first = bisect_left(self.whole_rows, digest)
        return range(first, bisect_right(self.whole_rows, digest, first))


def _bytes(text: str, form: str) -> bytes:
    """The bytes of a text as a tokenizer with that normal form sees them, trimmed."""
    if form and not text.isascii():
        text = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    return text.strip().encode("utf-8", "replace")


@dataclass
class SourceRows:
    """What the sources say: an index per part, counts, and conversations for comparison."""

    origins: tuple[Origin, ...]
    indexes: dict[str, Index] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    by_line: list[bool] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    samples: dict[tuple[str, int], Messages] = field(default_factory=dict)
    read: bool = True
    """False: a source is not on this machine or only the backend can read it."""

    def place(self, part: str, row: int) -> str:
        """`file:line` of a source row; `file (row N)` where rows are not lines."""
        index = self.indexes[part]
        number = index.file[row]
        if self.by_line[number]:
            return f"{self.files[number]}:{index.line[row]}"
        return f"{self.files[number]} (row {index.line[row]})"


def read_sources(
    recipe: Recipe,
    origins: Sequence[Origin],
    normal_form: str = "",
    only: Mapping[str, set[int]] | None = None,
) -> SourceRows:
    """Read all rows once; rows that are not what their format says are passed over.

    `only` names the lines of each file that are wanted.
    """
    found = SourceRows(tuple(origins))
    for number, origin in enumerate(origins):
        read = reader(recipe, origin.source)
        if read is None or not origin.files:
            found.read = False
            found.counts.append(0)
            continue
        limit = origin.source.samples or recipe.data.samples
        kept = 0
        rows = 0
        for file, tally, row in islice(_rows(found, origin, only), limit):
            rows += 1
            truth = read(row)
            if truth is None:
                continue
            for part, pieces in truth.parts.items():
                index = found.indexes.setdefault(part, Index())
                if truth.chat and kept < SAMPLES and (len(pieces) > 3 or kept < SAMPLES // 2):
                    found.samples[part, index.rows] = truth.chat()
                    kept += 1
                index.add(number, file, tally.row, pieces, truth.whole, normal_form)
        found.counts.append(rows)
    for index in found.indexes.values():
        index.finish()
    return found


def _rows(
    found: SourceRows, origin: Origin, only: Mapping[str, set[int]] | None
) -> Iterator[tuple[int, Tally, Any]]:
    for file in origin.files:
        number = len(found.files)
        tally = Tally(file)
        found.files.append(file)
        found.by_line.append(True)
        wanted = only.get(str(file), set()) if only is not None else None
        if wanted is not None and not wanted:
            continue
        if wanted and file.suffix.lower() == ".jsonl":
            rows = _lines(file, tally, wanted)
        else:
            rows = READERS[file.suffix.lower()](file, tally, _unwatched)
        for row in rows:
            found.by_line[number] = tally.by_line
            if wanted is None or tally.row in wanted:
                yield number, tally, row


def _lines(file: Path, tally: Tally, wanted: set[int]) -> Iterator[Any]:
    """Some lines of a file; the others are not parsed."""
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if number in wanted:
                tally.row = number
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _unwatched(done: int) -> None:
    """Nobody watches."""


def origin_of(name: str, source: Source, path: str) -> Origin:
    """Where the rows of a source are: a local path, or the hub's cache."""
    complete = not (source.shards or source.skip)
    found = Path(path)
    if found.is_absolute() and not is_snapshot(found):
        return Origin(name, source, _known(data_files(found)), complete)
    folder = found if found.is_absolute() else _cached(path, source)
    files = data_files(folder) if folder else []
    of_split = [file for file in files if source.split in file.name]
    return Origin(name, source, _known(of_split or files), complete and not source.subset)


def _known(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.suffix.lower() in READERS)


def _cached(name: str, source: Source) -> Path | None:
    """The folder of a data set in the hub's cache; nothing is fetched."""
    if source.format in ("registered", "custom"):
        return None
    found = find(Repository("dataset", name, source.revision))
    return found.folder if found else None
