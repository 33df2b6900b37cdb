"""The label report as a JSON document, for `--json` and for the HTML page.

Version 2. `summary` has the facts, `findings` the verdict, `rows` the rows asked for: `ids`,
`trained` as runs `[start, length]`, `spans` as `[start, end, role]` (role `template` for what the
template wrote), `codes` of the findings that the row is about. A label is -100 where a token is
not trained, else the token's own id; `labels` has them all (a compact document only where a label
is neither), and `text` is the row's text. `vocabulary` maps the ids that occur to their text.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from orchestrator.environments.locks import RELEASES
from orchestrator.labels.facts import Subject
from orchestrator.labels.gathering import origins
from orchestrator.labels.judge import VERSION, Report
from orchestrator.labels.picking import TELLING, codes_by_row, pick_rows, places_of
from orchestrator.labels.prepared import IGNORED, Row
from orchestrator.labels.sources import SourceRows, read_sources
from orchestrator.labels.spans import roles_of

BINS = 40
PAGE_ROWS = 5000
"""Rows on the HTML page."""


def document(
    report: Report, subject: Subject, rows: Sequence[int], *, compact: bool = False
) -> dict[str, Any]:
    """The whole report with some rows; `compact`: without what follows from the rest."""
    facts = report.facts
    sources = _sources(report, subject, rows)
    codes = codes_by_row(report)
    found = [
        _row(row, report, sources, codes.get(index, []))
        for index in rows
        for row in report.prepared.row(index)
    ]
    used = sorted({token for row in found for token in row["ids"]})
    vocabulary = report.prepared.vocabulary
    # the page puts characters together that are several tokens; in JSON they would be no text
    broken = "surrogateescape" if compact else "replace"
    for row in [] if compact else found:
        row["text"] = vocabulary.text(np.array(row["ids"]))
        row.setdefault("labels", _labels(row))
    return {
        "version": VERSION,
        "recipe": report.recipe.name,
        "backend": report.recipe.backend,
        "release": RELEASES[report.recipe.backend],
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "prepared": str(report.prepared.dataset),
        "sequence_length": facts.sequence_length,
        "verdict": "pass" if report.level == "note" else report.level,
        "summary": _summary(report),
        "findings": [judged.as_dict() for judged in report.judged],
        "lengths": _histogram(report),
        "sources": [
            {
                "name": source.name,
                "rows": source.rows,
                "prepared": source.prepared,
                "dropped": max(source.rows - source.prepared, 0),
                "tokens": source.tokens,
                "trained_tokens": source.trained_tokens,
            }
            for source in facts.sources
        ],
        "vocabulary": {
            str(token): vocabulary.join(np.array([token])).decode("utf-8", broken) for token in used
        },
        "special": [t for t in used if t < vocabulary.size and bool(vocabulary.control[t])],
        "rows": found,
        "rows_total": facts.rows,
    }


def sample(report: Report, limit: int = PAGE_ROWS) -> list[int]:
    """All rows, or for large data evenly spaced ones and those with findings."""
    if report.facts.rows <= limit:
        return list(range(report.facts.rows))
    wanted = {int(row) for rows in report.gathered.failing.values() for row in rows[:200]}
    wanted.update(pick_rows(TELLING, report))
    spaced = np.linspace(0, report.facts.rows - 1, max(limit - len(wanted), 0)).astype(int)
    return sorted(wanted.union(spaced.tolist()))[:limit]


def _sources(report: Report, subject: Subject, rows: Sequence[int]) -> SourceRows:
    """The source rows of the rows that are shown; no others are parsed."""
    wanted: dict[str, set[int]] = {}
    for part in report.gathered.parts:
        chosen = np.isin(part.rows, rows) & (part.files >= 0)
        for file, line in zip(part.files[chosen], part.lines[chosen], strict=True):
            wanted.setdefault(report.gathered.files[file][0], set()).add(int(line))
    form = report.prepared.vocabulary.normal_form
    return read_sources(report.recipe, origins(subject), form, only=wanted)


def _summary(report: Report) -> dict[str, Any]:
    facts = report.facts
    duplicates = facts.hits.get("FT534", {}).get("count", 0)
    cut = facts.hits.get("FT508", {}).get("count", 0)
    return {
        **report.summary(),
        "stops_trained": facts.ends_with_stop,
        "truncated": cut,
        "duplicates": duplicates,
        "leaked": facts.leaked,
        "turns": facts.turns,
        "bos": facts.starts_with_bos,
    }


def _histogram(report: Report) -> dict[str, Any]:
    facts = report.facts
    lengths = report.lengths
    top = max(facts.longest, 1)
    step = -(-top // BINS)
    edges = list(range(0, top + step, step))
    counts, _ = np.histogram(lengths, bins=edges)
    return {
        "edges": edges,
        "counts": counts.tolist(),
        "cutoff": facts.sequence_length,
        "percentiles": facts.percentiles,
    }


def _row(row: Row, report: Report, sources: SourceRows | None, codes: list[str]) -> dict[str, Any]:
    part = next(part for part in report.gathered.parts if part.part == row.part)
    sequences = places_of(part, row.index)
    spans: list[list[Any]] = []
    at = 0
    for sequence in sequences:
        end = at + int(part.lengths[sequence])
        one = Row(row.index, row.part, row.ids[at:end], row.labels[at:end])
        spans += [
            [at + span.start, at + span.end, span.role]
            for span in roles_of(one, report.prepared.vocabulary, sources)
        ]
        at = end
    made: dict[str, Any] = {
        "row": row.index,
        "part": row.part,
        "source": next(filter(None, (report.place(part, at) for at in sequences)), None),
        "ids": row.ids,
        "trained": _runs(row.labels),
        "spans": spans,
        "codes": codes,
    }
    if any(label not in (IGNORED, token) for token, label in zip(row.ids, row.labels, strict=True)):
        made["labels"] = row.labels
    return made


def _labels(row: Mapping[str, Any]) -> list[int]:
    labels = [IGNORED] * len(row["ids"])
    for start, length in row["trained"]:
        labels[start : start + length] = row["ids"][start : start + length]
    return labels


def _runs(labels: Sequence[int]) -> list[list[int]]:
    marks = np.concatenate(([False], np.array(labels) != IGNORED, [False])).astype(np.int8)
    edges = np.diff(marks)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return np.stack((starts, ends - starts), axis=1).tolist() if len(starts) else []
