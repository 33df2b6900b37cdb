"""The same source rows prepared by two backends: which are equal, and why the others are not.

Rows are aligned by what they say and not by their order: backends shuffle, pack and drop rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from orchestrator.labels.alignment import align
from orchestrator.labels.prepared import IGNORED, POSITIONS, Prepared
from orchestrator.labels.vocabulary import Bools, Ints

Kind = Literal["text", "whitespace", "special", "cut", "truncation", "masking"]
KINDS: dict[Kind, str] = {
    "text": "template text",
    "whitespace": "whitespace",
    "special": "BOS, EOS or another special token",
    "cut": "the same text in other tokens",
    "truncation": "truncation",
    "masking": "masking",
}
NEAR = (32, 256)
"""How many tokens from the first difference on are looked at to tell where it ends: the second
number where the first is too few."""
QUOTED = 60


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One source row as a backend prepared it; `part` is empty, `chosen` or `rejected`."""

    row: int
    part: str
    ids: "np.ndarray[Any, np.dtype[np.int32]]"
    labels: "np.ndarray[Any, np.dtype[np.int32]]"

    @property
    def trained(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """For each token, whether the loss is computed on it."""
        trained: np.ndarray[Any, np.dtype[np.bool_]] = self.labels != IGNORED
        return trained

    @property
    def key(self) -> tuple[str, bytes]:
        """Equal for equal samples."""
        digest = blake2b(self.ids.tobytes(), digest_size=16)
        digest.update(self.trained.tobytes())
        return self.part, digest.digest()


class Side:
    """What one backend made of the rows."""

    def __init__(self, name: str, prepared: Sequence[Prepared], limit: int = 0) -> None:
        """Take training and validation data together: backends do not hold out the same rows.

        `limit` is the recipe's sequence length.
        """
        self.name = name
        self.limit = limit
        self.vocabulary = prepared[0].vocabulary
        self.special = set(np.flatnonzero(self.vocabulary.control).tolist())
        self.samples = [sample for one in prepared for sample in samples(one)]

    def text(self, ids: Iterable[int]) -> str:
        """Ids as text, special tokens included."""
        return self.vocabulary.text(np.array([int(i) for i in ids], dtype=np.int64))

    def token(self, number: int) -> str:
        """One token's own text."""
        return self.text([number])

    def content(self, number: int) -> str:
        """What a row says, without special tokens."""
        sample = self.samples[number]
        plain = [token for token in sample.ids.tolist() if token not in self.special]
        return f"{sample.part} {self.text(plain)}"


class Span(NamedTuple):
    """Tokens from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of two versions of a row, as tokens of either side."""

    kind: Kind
    message: str
    pair: tuple[Sample, Sample]
    spans: tuple[Span, Span]


@dataclass(slots=True)
class Comparison:
    """The rows of two backends side by side."""

    sides: tuple[Side, Side]
    identical: int = 0
    other_labels: int = 0
    other_ids: int = 0
    only: tuple[list[Sample], list[Sample]] = field(default_factory=lambda: ([], []))
    kinds: Counter[Kind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, str]:
        """The backends."""
        return self.sides[0].name, self.sides[1].name

    @property
    def equal(self) -> bool:
        """Whether both backends train exactly the same."""
        return not (self.other_labels or self.other_ids or self.only[0] or self.only[1])


def samples(prepared: Prepared) -> Iterator[Sample]:
    """Every source row in prepared data, packs taken apart."""
    packed = POSITIONS in prepared.schema.names
    control = prepared.vocabulary.control
    for batch in prepared.batches(packed=packed):
        # a backend stores them as it likes; keys are made of bytes
        ids, labels = batch.ids.astype(np.int32), batch.labels.astype(np.int32)
        bounds = pairwise(batch.offsets.tolist())
        for row, (start, end) in zip(batch.rows.tolist(), bounds, strict=True):
            here = slice(start, end)
            if packed:
                here = slice(start, _unpadded(ids, labels, start, end, control))
            yield Sample(row, batch.part, ids[here].copy(), labels[here].copy())


def _unpadded(ids: Ints, labels: Ints, start: int, end: int, control: Bools) -> int:
    """Where a sequence of a pack ends: the padding behind it is one control token, masked."""
    last = int(ids[end - 1])
    if last >= len(control) or not control[last]:
        return end
    while end > start + 1 and ids[end - 1] == last and labels[end - 1] == IGNORED:
        end -= 1
    return end


def compare(left: Side, right: Side, shown: int) -> Comparison:
    """Compare two backends' rows; so many differences are kept, of every kind the first ones."""
    found = Comparison((left, right))
    kept: list[tuple[int, Difference]] = []
    pairs, alone_left, alone_right = align(
        [sample.key for sample in left.samples],
        [sample.key for sample in right.samples],
        left.content,
        right.content,
    )
    found.only[0].extend(left.samples[number] for number in alone_left)
    found.only[1].extend(right.samples[number] for number in alone_right)
    for one, other in pairs:
        pair = left.samples[one], right.samples[other]
        if pair[0].key == pair[1].key:
            found.identical += 1
            continue
        difference = explain(found.sides, pair)
        if difference.kind == "masking":
            found.other_labels += 1
        else:
            found.other_ids += 1
        found.kinds[difference.kind] += 1
        if found.kinds[difference.kind] <= shown:
            kept.append((found.kinds[difference.kind], difference))
    kept.sort(key=lambda one: one[0])
    found.differences = [difference for _, difference in kept[:shown]]
    return found


def explain(sides: tuple[Side, Side], pair: tuple[Sample, Sample]) -> Difference:
    """Where two versions of a row first differ, and what that is about."""
    if np.array_equal(pair[0].ids, pair[1].ids):
        return _masking(sides, pair)
    spans = _first_difference(pair[0].ids.tolist(), pair[1].ids.tolist())
    pieces = [sample.ids[slice(*span)].tolist() for sample, span in zip(pair, spans, strict=True)]
    texts = [side.text(piece) for side, piece in zip(sides, pieces, strict=True)]
    kind = _kind(sides, pair, spans, pieces, texts)
    if kind == "cut":
        counts = [f"{len(piece)} by {side.name}" for side, piece in zip(sides, pieces, strict=True)]
        message = f"{_quoted(texts[0])} is cut into other tokens: {', '.join(counts)}"
    else:
        has = [
            f"{side.name} has {_quoted(text) if piece else 'nothing'}"
            for side, text, piece in zip(sides, texts, pieces, strict=True)
        ]
        message = " where ".join(has)
    if kind == "truncation":
        lengths = [f"{side.name} {len(s.ids)}" for side, s in zip(sides, pair, strict=True)]
        message = f"cut rows (tokens: {', '.join(lengths)}): {message}"
    return Difference(kind, message, pair, spans)


def _first_difference(left: list[int], right: list[int]) -> tuple[Span, Span]:
    """The first stretch of tokens that differs, on both sides."""
    most = min(len(left), len(right))
    start = next((i for i in range(most) if left[i] != right[i]), most)
    if start == most:
        return Span(start, len(left)), Span(start, len(right))
    for near in NEAR:
        pieces = left[start : start + near], right[start : start + near]
        codes = SequenceMatcher(None, *pieces, autojunk=False).get_opcodes()
        first = next(i for i, code in enumerate(codes) if code[0] != "equal")
        if first + 1 < len(codes):  # something equal follows
            break
    one, one_end, other, other_end = codes[first][1:]
    return Span(start + one, start + one_end), Span(start + other, start + other_end)


def _kind(
    sides: tuple[Side, Side],
    pair: tuple[Sample, Sample],
    spans: tuple[Span, Span],
    pieces: Sequence[list[int]],
    texts: Sequence[str],
) -> Kind:
    special = sides[0].special | sides[1].special
    if texts[0] == texts[1]:
        return "cut"
    # rows of packs are one token shorter than the limit (llamafactory 0.9.5)
    full = any(s.limit and len(x.ids) >= s.limit - 1 for s, x in zip(sides, pair, strict=True))
    if full and any(span.end == len(x.ids) for span, x in zip(spans, pair, strict=True)):
        return "truncation"
    if all(token in special for piece in pieces for token in piece):
        return "special"
    if "".join(texts[0].split()) == "".join(texts[1].split()):
        return "whitespace"
    return "truncation" if full else "text"


def _masking(sides: tuple[Side, Side], pair: tuple[Sample, Sample]) -> Difference:
    left, right = pair[0].trained, pair[1].trained
    differs = np.flatnonzero(left != right)
    start = int(differs[0])
    end = start + 1
    while end < len(left) and left[end] != right[end] and left[end] == left[start]:
        end += 1
    side = sides[0] if left[start] else sides[1]
    piece = pair[0].ids[start:end].tolist()
    what = _quoted(side.text(piece))
    if all(token in side.special for token in piece):
        what = f"the special token {what}"
    elif not side.text(piece).strip():
        before = pair[0].ids[max(start - 1, 0) : start].tolist()
        what = f"the whitespace {what} behind {_quoted(side.text(before))}"
    span = Span(start, end)
    return Difference("masking", f"only {side.name} trains {what}", pair, (span, span))


def _quoted(text: str) -> str:
    cut = text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."
    return "'" + cut.replace("\n", "\\n") + "'"
