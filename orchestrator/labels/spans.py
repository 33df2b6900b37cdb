"""A row's tokens by what they are: text of a role, template, stop token; trained or not."""

from dataclasses import dataclass

import numpy as np

from orchestrator.labels.flat import Flat
from orchestrator.labels.prepared import Batch, Row
from orchestrator.labels.sources import Index, SourceRows
from orchestrator.labels.tracing import Tracer
from orchestrator.labels.vocabulary import Vocabulary

TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start:end` of a row, and the role or field that their text comes from."""

    start: int
    end: int
    role: str


def roles_of(row: Row, vocabulary: Vocabulary, sources: SourceRows | None) -> list[Span]:
    """The spans of a row that is one sequence; empty if its source row is not found."""
    index = _index(row.part, sources)
    if index is None or not row.ids:
        return []
    ids, labels = np.array(row.ids), np.array(row.labels)
    bounds = np.array([0, len(ids)])
    view = Flat(Batch(row.part, ids, labels, bounds, np.array([row.index]), bounds[:1]), vocabulary)
    found = Tracer(index).trace(next(view.texts()), next(view.changes()))
    if found is None:
        return []
    spans: list[Span] = []
    at = 0
    for place in found.places:
        start = int(np.searchsorted(view.starts, place.start, side="right")) - 1
        end = int(np.searchsorted(view.starts, place.end, side="left"))
        start = max(start, at)
        if start > at:
            spans.append(Span(at, start, TEMPLATE))
        if end > start:
            spans.append(Span(start, end, index.roles[index.role[place.piece]]))
        at = max(end, start)
    if at < len(ids):
        spans.append(Span(at, len(ids), TEMPLATE))
    return spans


def _index(part: str, sources: SourceRows | None) -> Index | None:
    if sources is None:
        return None
    found = sources.indexes.get(part)
    if found is None and part not in ("chosen", "rejected"):
        found = sources.indexes.get("")
    return found if found and found.rows else None
