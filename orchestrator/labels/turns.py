"""The pieces of traced sequences as token ranges, and what their labels say."""

import re
from collections import Counter

import numpy as np

from orchestrator.labels.collected import Scanned, Settings
from orchestrator.labels.flat import Flat, before
from orchestrator.labels.sources import TRAINED
from orchestrator.labels.tracing import CUT, FULL, Found, Tracer
from orchestrator.labels.vocabulary import Bools, Ints

THOUGHT = b"<think>"
SEGMENT = "segment"
"""Pieces that are spelled out with their control tokens."""
CONTROL_LIKE = re.compile(rb"<\|[A-Za-z_]+\|>|<(?:start|end)_of_turn>")
SEARCHED = 100
"""Sequences whose template text is searched for control tokens: it is the same in all of them."""


class Turns:
    """The pieces of traced sequences as token ranges, and what their labels are."""

    def __init__(
        self,
        view: Flat,
        tracer: Tracer,
        traces: list[Found | None],
        found: Scanned,
        settings: Settings,
    ) -> None:
        self.view, self.tracer, self.found, self.settings = view, tracer, found, settings
        self.batch = view.batch
        index = tracer.index
        base = view.bounds.tolist()
        places = [
            (number, place.piece, base[number] + place.start, base[number] + place.end, place.state)
            for number, trace in enumerate(traces)
            if trace
            for place in trace.places
        ]
        columns = np.array(places, dtype=np.int64).reshape(-1, 5).T
        self.sequence, piece, start, end, self.state = columns
        self.piece = piece
        self.expected = np.frombuffer(index.expected, dtype=np.int8)[piece]
        segment = index.roles.index(SEGMENT) if SEGMENT in index.roles else -1
        self.segment = np.frombuffer(index.role, dtype=np.int8)[piece] == segment
        self.exact = np.array([bool(t and t.exact and index.whole[t.row]) for t in traces])
        self.missing = np.array([t.missing if t else 0 for t in traces])
        self.start, self.end = start, end
        self._tokens(start, end)

    def _tokens(self, start: Ints, end: Ints) -> None:
        """Token ranges: `first:last` lie wholly in the piece, `first:until` touch it."""
        starts = self.view.starts
        first = np.searchsorted(starts, start, side="right") - 1
        inside = self.view.blank_between(np.minimum(starts[first], start), start)
        self.first = np.where(inside, first, first + 1)
        self.opens = self.first.copy()
        self._skip_thoughts(start)
        self.until = np.searchsorted(starts, end, side="left")
        self.last = np.where(starts[self.until] > end, self.until - 1, self.until)
        self.last = np.maximum(self.last, self.first)
        follows = np.append(self.sequence[1:] == self.sequence[:-1], False)
        ends = self.batch.offsets[self.sequence + 1]
        self.next = np.where(follows, np.append(self.opens[1:], 0), ends)
        self.follows = follows

    def _skip_thoughts(self, start: Ints) -> None:
        """Where a thought is opened need not be trained: the prompt of reasoning templates does."""
        heads = self.tracer.index.heads
        opening = [i for i, piece in enumerate(self.piece.tolist()) if heads[piece][:7] == THOUGHT]
        blank = self.view.blank
        for i in opening:
            first = int(np.searchsorted(self.view.starts, start[i] + len(THOUGHT), side="left"))
            while first < len(blank) and blank[first]:
                first += 1
            self.first[i] = first

    def judge(self) -> None:
        """Collect what is wrong."""
        found = self.found
        found.exact += int(self.exact.sum())
        trained = self._sum(self.view.trained_before, self.first, self.last)
        self.some = trained > 0
        size = self.last - self.first
        learned = self.expected == TRAINED
        found.turns += int(learned.sum())
        right = before(self.view.trained & (self.batch.labels == self.batch.ids))
        counts = self._sum(self.view.trained_before, *self._bounds())
        untrained = learned & (self._sum(right, self.first, self.last) < size) & (counts > 0)
        self._add("FT504", untrained, trained=False)
        if self.settings.masked:
            self._add("FT503", (self.expected == 0) & (trained > 0), trained=True)
        self._controls()
        self._stops(learned)
        self._cuts(learned)
        if found.searched < SEARCHED:
            self._split_tokens()

    def _split_tokens(self) -> None:
        """What looks like a control token in the template's text, but is no token of its own."""
        view, batch = self.view, self.batch
        rows: list[int] = []
        places: list[int] = []
        hit = self.found.hit("FT538")
        for sequence in np.flatnonzero(self.exact)[: SEARCHED - self.found.searched].tolist():
            self.found.searched += 1
            base, end = view.bounds[sequence], view.bounds[sequence + 1]
            mine = self.sequence == sequence
            for match in CONTROL_LIKE.finditer(view.blob[base:end]):
                at = base + match.start()
                if bool(((self.start[mine] <= at) & (at < self.end[mine])).any()):
                    continue
                token = int(np.searchsorted(view.starts, at, side="right")) - 1
                if view.starts[token] == at and view.starts[token + 1] == base + match.end():
                    continue
                rows.append(int(batch.rows[sequence]))
                places.append(token - int(batch.bases[sequence]))
                hit.notes[match.group().decode()] += 1
        hit.add(np.array(rows, dtype=np.int64), batch.part, np.array(places, dtype=np.int64))

    def _bounds(self) -> tuple[Ints, Ints]:
        """Start and end of the sequence of each piece."""
        offsets = self.batch.offsets
        return offsets[self.sequence], offsets[self.sequence + 1]

    @staticmethod
    def _sum(counts: Ints, first: Ints, last: Ints) -> Ints:
        return counts[last] - counts[first]

    def _add(self, code: str, chosen: Bools, *, trained: bool) -> None:
        """Report pieces by their first token whose label is wrong, with the roles' names."""
        at = np.flatnonzero(chosen)
        if not len(at):
            return
        labels = self.view.trained
        tokens = np.fromiter(
            (
                self.first[i]
                + int(np.argmax(labels[self.first[i] : max(self.last[i], self.first[i] + 1)]
                                == trained))
                for i in at
            ),
            dtype=np.int64,
            count=len(at),
        )  # fmt: skip
        self._hit(code, at, tokens)
        index = self.tracer.index
        roles = np.frombuffer(index.role, dtype=np.int8)[self.piece[at]]
        for role, count in Counter(roles.tolist()).items():
            self.found.hit(code).notes[index.roles[role]] += count

    def _hit(self, code: str, pieces: Ints, tokens: Ints) -> None:
        sequence = self.sequence[pieces]
        self.found.hit(code).add(
            self.batch.rows[sequence], self.batch.part, tokens - self.batch.bases[sequence]
        )

    def _controls(self) -> None:
        """Control tokens inside of a piece: the text can end its own turn."""
        control = before(self.view.control)
        inside = (self.state == FULL) & (self._sum(control, self.first, self.until) > 0)
        self.stops_itself = inside & self.segment
        at = np.flatnonzero(inside & ~self.segment)
        tokens = np.fromiter(
            (
                self.first[i] + int(np.argmax(self.view.control[self.first[i] : self.until[i]]))
                for i in at
            ),
            dtype=np.int64,
            count=len(at),
        )
        if len(at):
            self._hit("FT533", at, tokens)

    def _stops(self, learned: Bools) -> None:
        """The token that ends each learned piece, and template text that is trained."""
        view, found, batch = self.view, self.found, self.batch
        places = np.append(np.flatnonzero(view.control), len(batch.ids))
        stop = places[np.searchsorted(places, self.until)]
        has = stop < self.next
        whole = learned & self.some & (self.state == FULL) & ~self.stops_itself
        ended = whole & has
        at_end = whole & ~has & ~self.follows
        length = batch.lengths[self.sequence]
        lost = at_end & (length >= self.settings.cutoff - 1)
        missing = whole & ~has & ~lost
        found.turns_judged += int(whole.sum())
        known = view.vocabulary.known(batch.labels)
        meant = view.trained & ((batch.labels == batch.ids) | view.vocabulary.control[known])
        trained = np.append(meant, False)[np.minimum(stop, len(meant))]
        # the label, not the id: LLaMA-Factory's `efficient_eos` has EOS in the labels alone
        found.stops.update(batch.labels[stop[ended & trained]].tolist())
        found.stops_untrained.update(batch.ids[stop[ended & ~trained]].tolist())
        found.stop_missing += int(missing.sum())
        wrong = np.flatnonzero((ended & ~trained) | missing)
        self._hit("FT505", wrong, np.where(has, stop, self.until - 1)[wrong])
        at = np.flatnonzero(lost)
        self._hit("FT508", at, self.until[at] - 1)
        found.cut["stop token"] += len(at)
        self._gaps(learned, np.where(has, stop + 1, self.until))

    def _gaps(self, learned: Bools, after: Ints) -> None:
        """Trained text between pieces: all of it before a piece, and what follows a stop token."""
        if not self.settings.masked:
            return
        view, batch = self.view, self.batch
        sound = self.exact[self.sequence]
        inked = view.trained & (batch.labels == batch.ids) & ~view.blank
        if self.settings.pad is not None and self.settings.pad != self.settings.eos:
            inked &= batch.ids != self.settings.pad
        inks = before(inked)
        start = np.minimum(np.where(learned | self.some, after, self.until), self.next)
        # a second stop token behind the first one is fine: Phi 3 closes a conversation so
        ends = [*self.found.stops, -1 if self.settings.eos is None else self.settings.eos]
        again = before(inked & np.isin(batch.ids, ends))
        spare = np.where(learned, self._sum(again, start, self.next), 0)
        wrong = sound & (self._sum(inks, start, self.next) > spare)
        leading = np.concatenate(([True], ~self.follows[:-1]))
        opening = batch.offsets[self.sequence]
        wrong_first = sound & leading & (self._sum(inks, opening, self.opens) > 0)
        for chosen, begin, end in ((wrong, start, self.next), (wrong_first, opening, self.opens)):
            at = np.flatnonzero(chosen)
            at = at[[not self._thought(begin[i], end[i]) for i in at]]
            tokens = [begin[i] + int(np.argmax(inked[begin[i] : end[i]])) for i in at]
            self._hit("FT531", at, np.array(tokens, dtype=np.int64))
        short = batch.lengths[self.sequence] < self.settings.cutoff - 1
        previous = self.opens[learned & sound & short & (self.opens > opening)] - 1
        self.found.before_answer.update(batch.ids[previous].tolist())

    def _headers(self, learned: Bools) -> None:
        """Answers in rows at the limit: their header may be cut off with the end of the prompt.

        LLaMA-Factory 0.9.5 cuts prompt and answer apart, and so between header and answer.
        """
        batch, found = self.batch, self.found
        opening = batch.offsets[self.sequence]
        same = np.append(False, self.sequence[1:] == self.sequence[:-1])
        broken = np.append(False, self.state[:-1] != FULL) & same
        at = np.flatnonzero(learned & broken)
        self._hit("FT508", at, self.opens[at])
        found.cut["header"] += len(at)
        for i in np.flatnonzero(learned & ~broken & (self.opens > opening)).tolist():
            token = int(self.opens[i])
            row, base = int(batch.rows[self.sequence[i]]), int(batch.bases[self.sequence[i]])
            found.at_limit.append((row, batch.part, token - base, int(batch.ids[token - 1])))

    def _thought(self, begin: int, end: int) -> bool:
        """Whether all that is trained is an empty thought, which reasoning templates write."""
        chosen = self.batch.ids[begin:end][self.view.trained[begin:end]]
        text = self.view.vocabulary.join(chosen)
        return not text.replace(b"<think>", b"").replace(b"</think>", b"").strip()

    def _cuts(self, learned: Bools) -> None:
        """What the length limit took away."""
        batch, found = self.batch, self.found
        full = batch.lengths >= self.settings.cutoff - 1
        cut = (self.state == CUT) & full[self.sequence]
        answers = np.flatnonzero(cut & learned)
        self._hit("FT508", answers, self.until[answers] - 1)
        found.cut["answer"] += len(answers)
        self._headers(learned & full[self.sequence])
        changed = (self.state != FULL) & full[self.sequence] & ~learned
        found.cut["prompt"] += int(changed.sum())
        gone = np.flatnonzero(full & (self.missing > 0))
        gone = gone[~np.isin(gone, self.sequence[answers])]
        last = batch.offsets[gone + 1] - 1 - batch.bases[gone]
        found.hit("FT508").add(batch.rows[gone], batch.part, last)
        found.cut["turn"] += int(self.missing[gone].sum())
