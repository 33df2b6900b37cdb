"""A batch of prepared sequences with what is derived from it: marks, text, places in the text."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from orchestrator.labels.prepared import IGNORED, Batch
from orchestrator.labels.vocabulary import Bools, Ints, Vocabulary


class Flat:
    """A batch with what is derived from it."""

    def __init__(self, batch: Batch, vocabulary: Vocabulary) -> None:
        self.batch = batch
        self.vocabulary = vocabulary
        self.trained: Bools = batch.labels != IGNORED
        self.trained_before = before(self.trained)
        known = vocabulary.known(batch.ids)
        self.blank: Bools = vocabulary.blank[known]
        self.control: Bools = vocabulary.control[known]
        self.starts = np.concatenate(([0], np.cumsum(vocabulary.lengths[known])))
        self.blob = vocabulary.join(known)
        self.bounds = self.starts[batch.offsets]

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
        if not hasattr(self, "_ink"):
            raw = np.frombuffer(self.blob, dtype=np.uint8)
            ink = (raw > 32) | ((raw < 9) | ((raw > 13) & (raw < 32)))
            self._ink = before(ink)
        result: Bools = self._ink[end] == self._ink[start]
        return result


def before(marks: Bools) -> Ints:
    """How many are marked before each place; one entry more than places."""
    return np.concatenate(([0], np.cumsum(marks)))
