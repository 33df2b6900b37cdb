"""One pass over prepared data: facts about every sequence, held against the source rows.

All work per token is done by numpy on batches; per row there is one lookup of its source. What is
wrong is collected under the code of the rule that judges it (`rules.py`).
"""

import numpy as np

from orchestrator.labels.collected import PartFacts, Scanned, Settings
from orchestrator.labels.flat import Flat
from orchestrator.labels.prepared import Batch, Prepared
from orchestrator.labels.sources import SourceRows
from orchestrator.labels.tracing import Found, Tracer
from orchestrator.labels.turns import Turns
from orchestrator.labels.vocabulary import Bools, Ints, Vocabulary

TAIL = 4
"""How many tokens before the end of a trained span may hold its stop token, where the source row is
not known: LLaMA-Factory's templates train a separator behind it (llamafactory 0.9.5)."""


class Scanner:
    """Goes over prepared data batch by batch."""

    def __init__(self, prepared: Prepared, sources: SourceRows | None, settings: Settings) -> None:
        self.prepared = prepared
        self.vocabulary: Vocabulary = prepared.vocabulary
        self.settings = settings
        self.found = Scanned()
        indexes = sources.indexes if sources else {}
        self.tracers = {part: Tracer(index) for part, index in indexes.items() if index.rows}

    def tracer(self, part: str) -> Tracer | None:
        """The index that a part is looked up in; a completion is under the only one there is."""
        if part in self.tracers:
            return self.tracers[part]
        return self.tracers.get("") if part not in ("chosen", "rejected") else None

    def run(self) -> Scanned:
        """The whole data set."""
        for batch in self.prepared.batches(packed=self.settings.packed):
            if len(batch.rows):
                self._batch(batch)
        return self.found

    def mark(self, others: Prepared) -> Ints:
        """Go over held-out rows: their sources count as used. Returns a hash per sequence."""
        hashes: list[Ints] = [np.zeros(0, dtype=np.int64)]
        for batch in others.batches(packed=self.settings.packed):
            view = Flat(batch, self.vocabulary)
            hashes.append(view.hashes())
            tracer = self.tracer(batch.part)
            if tracer:
                for text in view.texts():
                    tracer.trace(text)
        return np.concatenate(hashes)

    def _batch(self, batch: Batch) -> None:
        view = Flat(batch, self.vocabulary)
        part = self.found.parts.setdefault(batch.part, PartFacts())
        counts = view.trained_before[batch.offsets[1:]] - view.trained_before[batch.offsets[:-1]]
        part.lengths.append(batch.lengths.astype(np.int32))
        part.padding.append(self._padding(view).astype(np.int32))
        part.trained.append(counts.astype(np.int32))
        part.rows.append(batch.rows.astype(np.int64))
        part.hashes.append(view.hashes())
        self.found.tokens += len(batch.ids)
        self.found.text_bytes += int(view.starts[-1])
        self._ids(view, counts)
        tracer = self.tracer(batch.part) if self.settings.judged else None
        traces: list[Found | None] = [None] * len(batch.rows)
        if tracer:
            traces = self._trace(view, tracer)
        part.origins.append(
            np.fromiter((t.row if t else -1 for t in traces), dtype=np.int64, count=len(traces))
        )
        known = np.fromiter((t is not None for t in traces), dtype=np.bool_, count=len(traces))
        self.found.traced += int(known.sum())
        if tracer and known.any():
            Turns(view, tracer, traces, self.found, self.settings).judge()
        if self.settings.judged:
            self._spans(view, ~known)

    def _padding(self, view: "Flat") -> Ints:
        """How many tokens at the end of each sequence of packed rows only fill the row."""
        batch, pad = view.batch, self.settings.pad
        if not self.settings.packed or pad is None:
            return np.zeros(len(batch.rows), dtype=np.int64)
        kept = np.append(-1, np.flatnonzero((batch.ids != pad) | view.trained))
        ends = batch.offsets[1:]
        last: Ints = kept[np.searchsorted(kept, ends) - 1]
        padding: Ints = ends - np.maximum(last + 1, batch.offsets[:-1])
        return padding

    def _trace(self, view: "Flat", tracer: Tracer) -> list[Found | None]:
        changes = view.changes()
        if not tracer.joints.rows:
            tracer.learn(list(view.texts()))
        return [tracer.trace(text, at) for text, at in zip(view.texts(), changes, strict=True)]

    def _ids(self, view: "Flat", counts: Ints) -> None:
        """What can be seen without the source row."""
        batch, settings, hit = view.batch, self.settings, self.found.hit
        starts, ends = batch.offsets[:-1], batch.offsets[1:]
        filled = ends > starts

        def add(code: str, places: Ints) -> None:
            owner = view.owner(places)
            hit(code).add(batch.rows[owner], batch.part, places - batch.bases[owner])

        empty = np.flatnonzero((counts == 0) & (batch.lengths != 1))
        hit("FT502").add(batch.rows[empty], batch.part, np.full(len(empty), -1))
        if settings.bos is not None:
            first = starts[filled]
            self.found.bos += int((batch.ids[first] == settings.bos).sum())
            second = first[(first + 1) < ends[filled]]
            double = (batch.ids[second] == settings.bos) & (batch.ids[second + 1] == settings.bos)
            add("FT507", second[double] + 1)
        if settings.embedding:
            add("FT537", np.flatnonzero(batch.ids >= settings.embedding))
        if settings.pad is not None:
            add("FT536", self._trained_padding(view, settings.pad))

    def _trained_padding(self, view: "Flat", pad: int) -> Ints:
        """Padding behind padding that is trained; a single one may be the stop token."""
        ids = view.batch.ids
        at = np.flatnonzero((ids == pad) & view.trained)
        before = at[at > 0]
        repeated = before[ids[before - 1] == pad]
        starts = np.isin(repeated, view.batch.offsets)
        inside: Ints = repeated[~starts]
        return inside

    def _spans(self, view: "Flat", chosen: Bools) -> None:
        """Stop tokens of sequences whose source row is not known: by the ends of trained spans."""
        batch, found = view.batch, self.found
        if not chosen.any():
            return
        trained = view.trained
        first = np.zeros(len(trained) + 1, dtype=np.bool_)
        first[batch.offsets] = True
        ends = np.flatnonzero(trained & ~(np.append(trained[1:], False) & ~first[1:]))
        owner = view.owner(ends)
        ends, owner = ends[chosen[owner]], owner[chosen[owner]]
        found.turns += len(ends)
        control = view.control
        ended = np.zeros(len(ends), dtype=np.bool_)
        inside = np.ones(len(ends), dtype=np.bool_)
        for back in range(TAIL):
            at = np.maximum(ends - back, 0)
            inside = inside & (ends - back >= batch.offsets[owner]) & trained[at]
            hits = inside & ~ended & control[at]
            found.stops.update(batch.ids[at[hits]].tolist())
            ended |= hits
        full = (batch.lengths[owner] >= self.settings.cutoff - 1) & (
            ends == batch.offsets[owner + 1] - 1
        )
        lost = ~ended & full
        found.hit("FT508").add(
            batch.rows[owner[lost]], batch.part, ends[lost] - batch.bases[owner[lost]]
        )
        found.cut["answer or stop token"] += int(lost.sum())
        found.turns_judged += int((~lost).sum())
        found.stop_missing += int((~ended & ~lost).sum())
