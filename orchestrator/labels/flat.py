"""A batch of prepared sequences with what is derived from it: marks, text, places in the text."""

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from orchestrator.labels.joints import WIDE
from orchestrator.labels.prepared import IGNORED, Batch
from orchestrator.labels.vocabulary import Bools, Ints, Vocabulary

WIDE_SPACE = re.compile(b"|".join(WIDE))
INK: Bools = np.array([byte > 32 or byte < 9 or 13 < byte < 28 for byte in range(256)])
"""Whether a byte is no white space."""


class Flat:
    """A batch with what is derived from it."""

    def __init__(self, batch: Batch, vocabulary: Vocabulary) -> None:
        self.batch = batch
        self.vocabulary = vocabulary
        self.trained: Bools = batch.labels != IGNORED
        self.trained_before = before(self.trained)
        known = vocabulary.known(batch.ids)
        self.control: Bools = vocabulary.control[known]
        self.starts = np.concatenate(([0], np.cumsum(vocabulary.lengths[known])))
        self.blob = vocabulary.join(known)
        self.bounds = self.starts[batch.offsets]
        self._ink = before(self._inked())
        self.blank: Bools = self._ink[self.starts[1:]] == self._ink[self.starts[:-1]]

    def _inked(self) -> Bools:
        """Which bytes are no white space."""
        raw = np.frombuffer(self.blob, dtype=np.uint8)
        ink: Bools = INK[raw]
        for match in () if self.blob.isascii() else WIDE_SPACE.finditer(self.blob):
            ink[match.start() : match.end()] = False
        return ink

    def texts(self) -> Iterator[bytes]:
        """The text of each sequence."""
        bounds = self.bounds.tolist()
        for start, end in pairwise(bounds):
            yield self.blob[start:end]

    def changes(self) -> Iterator[list[int]]:
        """For each sequence the places in its text where the label changes."""
        at = np.flatnonzero(self.trained[1:] != self.trained[:-1]) + 1
        splits = np.searchsorted(at, self.batch.offsets).tolist()
        places = self.starts[at].tolist()
        for i, base in enumerate(self.bounds[:-1].tolist()):
            yield [place - base for place in places[splits[i] : splits[i + 1]]]

    def hashes(self) -> Ints:
        """A hash of each sequence's ids."""
        raw = np.ascontiguousarray(self.batch.ids, dtype=np.int32).tobytes()
        bounds = (self.batch.offsets * 4).tolist()
        return np.fromiter(
            (hash(raw[a:b]) for a, b in pairwise(bounds)),
            dtype=np.int64,
            count=len(bounds) - 1,
        )

    def owner(self, tokens: Ints) -> Ints:
        """The sequence of each token."""
        return np.searchsorted(self.batch.offsets, tokens, side="right") - 1

    def blank_between(self, start: Ints, end: Ints) -> Bools:
        """Whether the bytes between are white space only."""
        result: Bools = self._ink[end] == self._ink[start]
        return result


def before(marks: Bools) -> Ints:
    """How many are marked before each place; one entry more than places."""
    counts = np.zeros(len(marks) + 1, dtype=np.int32)
    np.cumsum(marks, out=counts[1:])
    return counts
