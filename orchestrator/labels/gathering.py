"""Gathering the facts over a whole prepared data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.files import read_json
from orchestrator.labels.collected import Hits, PartFacts, Scanned, Settings
from orchestrator.labels.facts import Facts, Gathered, Sequences, SourceFacts, Subject
from orchestrator.labels.prepared import Prepared, Row
from orchestrator.labels.scan import Scanner
from orchestrator.labels.serving import generation_stops, templates
from orchestrator.labels.sources import Origin, SourceRows, origin_of, read_sources
from orchestrator.labels.vocabulary import Ints
from orchestrator.labels.whole import dropped, held_out, lost_headers

PERCENTILES = (50, 75, 90, 95, 99, 100)
EXAMPLES = 3
CONTEXT = 60


def gather(subject: Subject) -> Gathered:
    """Look at all of it once.

    Raises:
        LabelError: the prepared data cannot be read.
    """
    recipe, prepared = subject.recipe, subject.prepared
    sources = read_sources(recipe, origins(subject), prepared.vocabulary.normal_form)
    settings = settings_of(subject)
    scanner = Scanner(prepared, sources, settings)
    scanned = scanner.run()
    lost_headers(scanned)
    facts = Facts(sequence_length=settings.cutoff, masked=settings.masked)
    parts = tuple(_sequences(name, part) for name, part in scanned.parts.items())
    _sizes(facts, parts, scanned)
    facts.traceable = settings.judged and any(index.rows for index in sources.indexes.values())
    held_out(facts, subject, scanner, scanned)
    _by_source(facts, sources, parts)
    if settings.judged:
        dropped(facts, subject, sources, scanner, scanned)
        templates(facts, subject, sources, parts, prepared)
    facts.known_stops = generation_stops(subject.base)
    hit = {code: hits for code, hits in scanned.hits.items() if hits.rows}
    failing = {code: np.unique(np.concatenate(hits.rows)) for code, hits in hit.items()}
    facts.hits = {
        code: {"count": len(failing[code]), **_hit_facts(hits, prepared)}
        for code, hits in hit.items()
    }
    parts = tuple(_with_places(sources, part) for part in parts)
    files = zip(map(str, sources.files), sources.by_line, strict=True)
    return Gathered(facts, parts, tuple(files), failing)


def _sequences(name: str, part: PartFacts) -> Sequences:
    def joined(arrays: Sequence[Ints]) -> Ints:
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)

    origins = joined(part.origins)
    return Sequences(
        name,
        joined(part.rows),
        joined(part.lengths),
        joined(part.padding),
        joined(part.trained),
        origins,
        np.full(len(origins), -1),
        np.zeros(len(origins), dtype=np.int64),
    )


def _sizes(facts: Facts, parts: Sequence[Sequences], scanned: Scanned) -> None:
    lengths = np.concatenate([part.sizes for part in parts] or [np.zeros(0, dtype=np.int64)])
    facts.rows = len(np.unique(parts[0].rows)) if parts else 0
    facts.sequences = len(lengths)
    facts.tokens = int(lengths.sum())
    facts.trained_tokens = int(sum(part.trained.sum() for part in parts))
    if len(lengths):
        facts.shortest, facts.longest = int(lengths.min()), int(lengths.max())
        facts.median = float(np.median(lengths))
        values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
        facts.percentiles = {
            str(at): int(value) for at, value in zip(PERCENTILES, values, strict=True)
        }
    facts.traced, facts.exact = scanned.traced, scanned.exact
    facts.turns, facts.turns_judged = scanned.turns, scanned.turns_judged
    facts.stops = {str(token): count for token, count in scanned.stops.most_common()}
    facts.stops_untrained = {str(t): count for t, count in scanned.stops_untrained.most_common()}
    facts.stop_missing = scanned.stop_missing
    facts.starts_with_bos = scanned.bos
    facts.cut = {what: count for what, count in scanned.cut.items() if count}


def _by_source(facts: Facts, sources: SourceRows, parts: Sequence[Sequences]) -> None:
    """Tokens of each source, as far as rows were traced to it."""
    for number, origin in enumerate(sources.origins):
        tokens = trained = prepared = 0
        for part in parts:
            index = sources.indexes.get(part.part) or sources.indexes.get("")
            if index is None or not index.rows:
                continue
            known = part.origins >= 0
            of = np.frombuffer(index.source, dtype=np.int16)[part.origins[known]] == number
            tokens += int(part.sizes[known][of].sum())
            trained += int(part.trained[known][of].sum())
            prepared = max(prepared, int(of.sum()))
        facts.sources.append(
            SourceFacts(origin.name, sources.counts[number], prepared, tokens, trained)
        )


def _hit_facts(hits: Hits, prepared: Prepared) -> dict[str, Any]:
    examples = [excerpt(prepared, row, part, token) for row, part, token in hits.first[:EXAMPLES]]
    return {
        "tokens": hits.tokens,
        "rows": list(dict.fromkeys(row for row, _, _ in hits.first)),
        "worst": hits.worst[0],
        "notes": dict(hits.notes.most_common()),
        "examples": examples,
    }


def excerpt(prepared: Prepared, row: int, part: str, token: int) -> dict[str, Any]:
    """Text around an offending token; `token` -1 means the start of the row."""
    found: Row = next(r for r in prepared.row(row) if r.part == part)
    vocabulary = prepared.vocabulary
    at = max(token, 0)
    ids = np.array(found.ids)
    return {
        "row": row,
        "part": part,
        "token": token,
        "before": vocabulary.text(ids[max(at - CONTEXT, 0) : at])[-CONTEXT:],
        "offending": vocabulary.text(ids[at : at + 1]) if token >= 0 else "",
        "after": vocabulary.text(ids[at + (token >= 0) : at + CONTEXT])[:CONTEXT],
    }


def _with_places(sources: SourceRows, part: Sequences) -> Sequences:
    """The sequences with file and line of their source rows."""
    index = sources.indexes.get(part.part) or sources.indexes.get("")
    if index is None or not index.rows:
        return part
    known = part.origins >= 0
    rows = np.maximum(part.origins, 0)
    files = np.where(known, np.frombuffer(index.file, dtype=np.int16)[rows], -1)
    lines = np.where(known, np.frombuffer(index.line, dtype=np.int64)[rows], 0)
    return replace(part, files=files, lines=lines)


def settings_of(subject: Subject) -> Settings:
    """What the scan needs to know of recipe, tokenizer and base."""
    recipe = subject.recipe
    data, stage = recipe.data, recipe.training.stage
    tokens = _special(subject.tokenizer)
    texts = all(source.format == "text" for source in data.sources)
    config = read_json(Path(subject.base) / "config.json") if subject.base else None
    embedding = 0
    if isinstance(config, dict):
        inner = config.get("text_config")
        inner = inner if isinstance(inner, dict) else config
        embedding = int(inner.get("vocab_size") or 0)
        # axolotl 0.19.0 makes room for new tokens by itself, LLaMA-Factory 0.9.5 if it is told to
        if embedding and (recipe.backend == "axolotl" or recipe.tokens.resize):
            embedding = max(embedding, subject.prepared.vocabulary.size - 1)
    return Settings(
        cutoff=data.sequence_length,
        bos=tokens.get("bos_token"),
        eos=tokens.get("eos_token"),
        pad=tokens.get("pad_token"),
        embedding=embedding,
        masked=data.train_on != "all" and not texts and stage != "pretrain",
        judged=stage != "pretrain",
        packed=data.packing,
    )


def _special(folder: Path) -> dict[str, int]:
    """Ids of the tokenizer's named tokens."""
    config = read_json(folder / "tokenizer_config.json")
    document = read_json(folder / "tokenizer.json")
    if not isinstance(config, dict) or not isinstance(document, dict):
        return {}
    added = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
    vocabulary = document.get("model", {}).get("vocab")
    known = vocabulary if isinstance(vocabulary, dict) else {}
    found = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        number = added.get(text, known.get(text)) if text else None
        if number is not None:
            found[name] = int(number)
    return found


def origins(subject: Subject) -> tuple[Origin, ...]:
    """Where the training rows came from."""
    named = zip(subject.recipe.data.sources, subject.sources, strict=False)
    return tuple(origin_of(source.path, source, path) for source, path in named)
