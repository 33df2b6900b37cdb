"""Facts that only the whole data set shows: copies, leaks, rows left out, headers lost."""

from collections import Counter

import numpy as np

from orchestrator.labels.collected import KEPT, Scanned
from orchestrator.labels.facts import Facts, Subject
from orchestrator.labels.prepared import Prepared
from orchestrator.labels.scan import Scanner
from orchestrator.labels.sources import SourceRows
from orchestrator.labels.vocabulary import Ints

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
    sampled = data.mixing or data.weights or data.streaming
    if sampled or data.samples or not sources.read or not all(o.whole for o in sources.origins):
        return
    part, tracer = next(iter(scanner.tracers.items()), (None, None))
    if part is None or tracer is None:
        return
    index = tracer.index
    filled = np.diff(np.frombuffer(index.first, dtype=np.int64)) > 0
    unused = np.flatnonzero(~np.frombuffer(bytes(tracer.used), dtype=np.bool_) & filled)
    facts.source_rows = sum(sources.counts)
    per_byte = scanned.tokens / scanned.text_bytes if scanned.text_bytes else 0.25
    used = np.frombuffer(bytes(tracer.used), dtype=np.bool_)
    sizes = np.add.reduceat(np.append(np.frombuffer(index.length, np.int64), 0), index.first[:-1])
    template = max(scanned.text_bytes - int(sizes[used & filled].sum()), 0) / max(
        facts.sequences, 1
    )
    copies = {index.digest[index.anchors[row]] for row in range(index.rows) if tracer.used[row]}
    reasons: Counter[str] = Counter()
    for row in unused.tolist():
        pieces = range(index.first[row], index.first[row + 1])
        size = (sum(index.length[piece] for piece in pieces) + template) * per_byte
        if size > data.sequence_length * NEARLY:
            reasons["longer than data.sequence_length"] += 1
        elif not any(index.expected[piece] != 0 for piece in pieces):
            reasons["nothing to learn"] += 1
        elif data.deduplicate and index.digest[index.anchors[row]] in copies:
            continue
        else:
            reasons["refused by the backend, or not recognised"] += 1
        if len(facts.dropped_places) < KEPT:
            facts.dropped_places.append(sources.place(part, row))
    # rows that were cut to the same words cannot be told apart: they are there
    facts.dropped = max(sum(reasons.values()) - tracer.doubtful, 0)
    facts.dropped_reasons = dict(reasons.most_common()) if facts.dropped else {}


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
