"""Facts over a whole prepared data set, before anybody judges them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.files import read_json
from orchestrator.labels.collected import KEPT, Hits, PartFacts, Scanned, Settings
from orchestrator.labels.prepared import Prepared, Row
from orchestrator.labels.scan import Scanner
from orchestrator.labels.served import ChatTemplate, Difference, difference
from orchestrator.labels.sources import Origin, SourceRows, origin_of, read_sources
from orchestrator.labels.vocabulary import Ints
from orchestrator.recipe.models import Recipe

PERCENTILES = (50, 75, 90, 95, 99, 100)
EXAMPLES = 3
CONTEXT = 60
COMPARED = 6
"""Conversations that are rendered with the chat template."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged: the recipe and what its preprocessing left.

    `sources` are absolute paths or hub ids, in the recipe's order; `base` is the base model's
    folder, empty if it is not on this machine.
    """

    recipe: Recipe
    dataset: Path
    tokenizer: Path
    validation: Path | None = None
    sources: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    base: str = ""

    @property
    def prepared(self) -> Prepared:
        """The training data."""
        return Prepared(self.dataset, self.tokenizer)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source: its rows, those that were found in the prepared data, and their tokens."""

    name: str
    rows: int
    prepared: int
    tokens: int
    trained_tokens: int


@dataclass
class Facts:
    """What is true of the prepared data. Lengths are in tokens, shares between 0 and 1."""

    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    shortest: int = 0
    median: float = 0.0
    longest: int = 0
    percentiles: dict[str, int] = field(default_factory=dict)
    sequence_length: int = 0
    traced: int = 0
    exact: int = 0
    traceable: bool = False
    turns: int = 0
    turns_judged: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    stops_untrained: dict[str, int] = field(default_factory=dict)
    stop_missing: int = 0
    known_stops: list[int] | None = None
    starts_with_bos: int = 0
    cut: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    dropped_reasons: dict[str, int] = field(default_factory=dict)
    dropped_places: list[str] = field(default_factory=list)
    source_rows: int = 0
    validation_rows: int = 0
    leaked: int = 0
    masked: bool = True
    sources: list[SourceFacts] = field(default_factory=list)
    template: dict[str, Any] | None = None
    base_template: dict[str, Any] | None = None
    compared: int = 0
    hits: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end at least one in twenty answers."""
        every = sum(self.stops.values())
        return sorted(int(token) for token, count in self.stops.items() if count * 20 >= every > 0)

    @property
    def ends_with_stop(self) -> float:
        """Share of the answers that end with a trained stop token."""
        ended = sum(self.stops.values())
        of = ended + sum(self.stops_untrained.values()) + self.stop_missing
        return round(ended / of, 6) if of else 0.0


@dataclass(frozen=True, slots=True)
class Sequences:
    """One entry per sequence of one part: its row, length, trained tokens, source row (-1: not
    found), and file number and line of that."""

    part: str
    rows: Ints
    lengths: Ints
    trained: Ints
    origins: Ints
    files: Ints
    lines: Ints


@dataclass(frozen=True, slots=True)
class Gathered:
    """Facts, and what they are about row by row."""

    facts: Facts
    parts: tuple[Sequences, ...]
    files: tuple[tuple[str, bool], ...]
    """Source files, and whether their rows are lines."""
    failing: dict[str, Ints]
    """The rows that each rule is about."""


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
    facts = Facts(sequence_length=settings.cutoff, masked=settings.masked)
    parts = tuple(_sequences(name, part) for name, part in scanned.parts.items())
    _sizes(facts, parts, scanned)
    facts.traceable = settings.judged and any(index.rows for index in sources.indexes.values())
    _held_out(facts, subject, scanner, scanned)
    _by_source(facts, sources, parts)
    if settings.judged:
        _dropped(facts, subject, sources, scanner, scanned)
        _templates(facts, subject, sources, parts, prepared)
    facts.known_stops = _generation_stops(subject.base)
    facts.hits = {
        code: _hit_facts(hits, prepared) for code, hits in scanned.hits.items() if hits.count
    }
    failing = {
        code: np.unique(np.concatenate(hits.rows))
        for code, hits in scanned.hits.items()
        if hits.count
    }
    parts = tuple(_with_places(sources, part) for part in parts)
    files = zip(map(str, sources.files), sources.by_line, strict=True)
    return Gathered(facts, parts, tuple(files), failing)


def origins(subject: Subject) -> tuple[Origin, ...]:
    """Where the training rows came from."""
    named = zip(subject.recipe.data.sources, subject.sources, strict=False)
    return tuple(origin_of(source.path, source, path) for source, path in named)


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


def _sequences(name: str, part: PartFacts) -> Sequences:
    def joined(arrays: Sequence[Ints]) -> Ints:
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)

    origins = joined(part.origins)
    return Sequences(
        name,
        joined(part.rows),
        joined(part.lengths),
        joined(part.trained),
        origins,
        np.full(len(origins), -1),
        np.zeros(len(origins), dtype=np.int64),
    )


def _sizes(facts: Facts, parts: Sequence[Sequences], scanned: Scanned) -> None:
    lengths = np.concatenate([part.lengths for part in parts] or [np.zeros(0, dtype=np.int64)])
    facts.rows = len(np.unique(parts[0].rows)) if parts else 0
    facts.sequences = len(lengths)
    facts.tokens = int(lengths.sum())
    facts.trained_tokens = int(sum(part.trained.sum() for part in parts))
    if len(lengths):
        facts.shortest, facts.longest = int(lengths.min()), int(lengths.max())
        facts.median = float(np.median(lengths))
        values = np.percentile(lengths, PERCENTILES, method="higher")
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


def _row_hashes(scanned: Scanned) -> Ints:
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


def _held_out(facts: Facts, subject: Subject, scanner: Scanner, scanned: Scanned) -> None:
    """Copies among the training rows, and validation rows that are among them."""
    hashes = _row_hashes(scanned)
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
            tokens += int(part.lengths[known][of].sum())
            trained += int(part.trained[known][of].sum())
            prepared = max(prepared, int(of.sum()))
        facts.sources.append(
            SourceFacts(origin.name, sources.counts[number], prepared, tokens, trained)
        )


def _dropped(
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
    copies = {index.digest[index.anchors[row]] for row in range(index.rows) if tracer.used[row]}
    reasons: Counter[str] = Counter()
    for row in unused.tolist():
        pieces = range(index.first[row], index.first[row + 1])
        size = sum(index.length[piece] for piece in pieces) * per_byte
        if size > data.sequence_length * 0.8:
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


def _templates(
    facts: Facts,
    subject: Subject,
    sources: SourceRows,
    parts: Sequence[Sequences],
    prepared: Prepared,
) -> None:
    """The trained text of some conversations against the tokenizer's and the base's template."""
    own = ChatTemplate.of(subject.tokenizer)
    of_base = ChatTemplate.of(Path(subject.base)) if subject.base else None
    if own is None and of_base is None:
        return
    for part in parts:
        found: Difference | None = None
        for (name, source_row), truth in sources.samples.items():
            if name != part.part or facts.compared >= COMPARED:
                continue
            at = np.flatnonzero(part.origins == source_row)
            if not len(at) or part.lengths[at[0]] >= facts.sequence_length - 1:
                continue
            text = _sequence_text(prepared, part, int(at[0]))
            row = int(part.rows[at[0]])
            facts.compared += 1
            for template, field_name in ((own, "template"), (of_base, "base_template")):
                served = template.render(truth.messages) if template else None
                if served is None or getattr(facts, field_name) is not None:
                    continue
                found = difference(row, text, served, prepared.vocabulary.control_texts)
                setattr(facts, field_name, found.as_dict() if found else None)


def _sequence_text(prepared: Prepared, part: Sequences, at: int) -> str:
    """The text of a sequence, which may be one of several in a packed row."""
    row = int(part.rows[at])
    ids = next(r.ids for r in prepared.row(row) if r.part == part.part)
    before = part.lengths[np.flatnonzero(part.rows[:at] == row)]
    start = int(before.sum())
    return prepared.vocabulary.text(np.array(ids[start : start + int(part.lengths[at])]))


def _generation_stops(base: str) -> list[int] | None:
    """The tokens that end generation with the base model; None if that is not known."""
    if not base:
        return None
    for name in ("generation_config.json", "config.json"):
        document = read_json(Path(base) / name)
        eos = document.get("eos_token_id") if isinstance(document, dict) else None
        if eos is not None:
            return [int(token) for token in eos] if isinstance(eos, list) else [int(eos)]
    return None


def _hit_facts(hits: Hits, prepared: Prepared) -> dict[str, Any]:
    examples = [excerpt(prepared, row, part, token) for row, part, token in hits.first[:EXAMPLES]]
    return {
        "count": hits.count,
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
