"""Facts that only the whole data set shows: copies, leaks, rows left out, headers lost."""

from collections import Counter

import numpy as np

from orchestrator.labels.collected import KEPT, Scanned
from orchestrator.labels.facts import Facts, Subject
from orchestrator.labels.prepared import Prepared
from orchestrator.labels.scan import Scanner
from orchestrator.labels.sources import Index, SourceRows
from orchestrator.labels.vocabulary import Bools, Ints

NEARLY = 0.8
"""Tokens of a dropped row are estimated from its bytes; rows from this share of the limit on are
taken for too long."""


def row_hashes(scanned: Scanned) -> Ints:
    """One hash per row; a pair is the same only if both of its parts are."""
    parts = [np.concatenate(part.hashes) for part in scanned.parts.values() if part.hashes]
    if not parts:
        return np.zeros(0, dtype=np.int64)
    if len({len(part) for part in parts}) > 1:
        return parts[0]
    mixed = parts[0].copy()
    for part in parts[1:]:
        mixed = mixed * 31 + part
    return mixed


def held_out(facts: Facts, subject: Subject, scanner: Scanner, scanned: Scanned) -> None:
    """Copies among the training rows, and validation rows that are among them."""
    hashes = row_hashes(scanned)
    unique, first = np.unique(hashes, return_index=True)
    repeated = np.ones(len(hashes), dtype=np.bool_)
    repeated[first] = False
    part = next(iter(scanned.parts.values()), None)
    if part is not None and repeated.any():
        rows = np.concatenate(part.rows)
        copies = np.flatnonzero(repeated & (np.concatenate(part.lengths) > 1))
        name = next(iter(scanned.parts))
        scanned.hit("FT534").add(rows[copies], name, np.full(len(copies), -1))
    if subject.validation is None or not (subject.validation / "state.json").is_file():
        return
    others = scanner.mark(Prepared(subject.validation, subject.tokenizer))
    if len(scanned.parts) == 1:
        facts.validation_rows = len(others)
        facts.leaked = int(np.isin(others, unique).sum())


def dropped(
    facts: Facts, subject: Subject, sources: SourceRows, scanner: Scanner, scanned: Scanned
) -> None:
    """Source rows that are nowhere in the prepared data, with the likely reason."""
    data = subject.recipe.data
    sampled = data.mixing or data.weights or data.streaming or data.samples
    if sampled or not sources.read or not all(origin.whole for origin in sources.origins):
        return
    part, tracer = next(iter(scanner.tracers.items()), (None, None))
    if part is None or tracer is None:
        return
    index = tracer.index
    used = np.frombuffer(bytes(tracer.used), dtype=np.bool_)
    filled = np.diff(np.frombuffer(index.first, dtype=np.int64)) > 0
    tokens = _estimate(index, used & filled, scanned, facts.sequences)
    copies = {index.digest[index.anchors[row]] for row in np.flatnonzero(used & filled)}
    reasons: Counter[str] = Counter()
    for row in np.flatnonzero(~used & filled).tolist():
        if data.deduplicate and index.digest[index.anchors[row]] in copies:
            continue
        too_long = tokens[row] > data.sequence_length * NEARLY
        reasons[_reason(index, row, too_long=too_long)] += 1
        if len(facts.dropped_places) < KEPT:
            facts.dropped_places.append(sources.place(part, row))
    # rows that were cut to the same words cannot be told apart: they are there
    facts.dropped = max(sum(reasons.values()) - tracer.doubtful, 0)
    facts.dropped_reasons = dict(reasons.most_common()) if facts.dropped else {}
    facts.source_rows = sum(sources.counts)


def _estimate(index: Index, used: Bools, scanned: Scanned, sequences: int) -> Ints:
    """About how many tokens each source row has, from its bytes and those of rows like it."""
    lengths = np.append(np.frombuffer(index.length, dtype=np.int64), 0)
    sizes = np.add.reduceat(lengths, np.frombuffer(index.first, dtype=np.int64)[:-1])
    template = max(scanned.text_bytes - int(sizes[used].sum()), 0) / max(sequences, 1)
    per_byte = scanned.tokens / scanned.text_bytes if scanned.text_bytes else 0.25
    tokens: Ints = ((sizes + template) * per_byte).astype(np.int64)
    return tokens


def _reason(index: Index, row: int, *, too_long: bool) -> str:
    pieces = range(index.first[row], index.first[row + 1])
    if too_long:
        return "longer than data.sequence_length"
    if not any(index.expected[piece] != 0 for piece in pieces):
        return "nothing to learn"
    return "refused by the backend, or not recognised"


def lost_headers(scanned: Scanned) -> None:
    """Answers at the limit that follow another token than answers do elsewhere."""
    every = sum(scanned.before_answer.values())
    usual = {token for token, count in scanned.before_answer.items() if count * 50 >= every}
    lost = [answer for answer in scanned.at_limit if usual and answer[3] not in usual]
    for part in dict.fromkeys(answer[1] for answer in lost):
        mine = [(row, token) for row, of, token, _ in lost if of == part]
        rows, tokens = np.array(mine, dtype=np.int64).T
        scanned.hit("FT508").add(rows, part, tokens)
        scanned.cut["header"] += len(rows)
