"""The label report: facts of prepared data and the verdict on them, kept beside the data."""

import gc
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import LaunchError
from orchestrator.files import read_json, write_atomic, write_json
from orchestrator.findings import Finding
from orchestrator.labels.facts import Facts, Gathered, Sequences, SourceFacts, Subject
from orchestrator.labels.gathering import gather
from orchestrator.labels.prepared import Prepared
from orchestrator.labels.rules import Judged, verdict
from orchestrator.labels.vocabulary import Ints
from orchestrator.recipe.models import Recipe

VERSION = 2
"""Of the report's JSON form, and of what is kept of it."""
FACTS, ARRAYS = "ft-labels.json", "ft-labels.npz"
RANK = ("note", "warning", "error")


@dataclass(frozen=True)
class Report:
    """The facts about prepared data, and what they mean."""

    recipe: Recipe
    prepared: Prepared
    gathered: Gathered
    judged: tuple[Judged, ...]

    @property
    def facts(self) -> Facts:
        """The facts."""
        return self.gathered.facts

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence without padding, all parts together."""
        return np.concatenate([np.zeros(0, np.int64), *(p.sizes for p in self.gathered.parts)])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The verdict as findings, the worst first."""
        return tuple(judged.finding for judged in self.judged)

    @property
    def level(self) -> str:
        """`pass`, `note`, `warning` or `error`: the worst finding."""
        return max((f.level for f in self.findings), key=RANK.index, default="pass")

    def failures(self, fail_on: str | None = None) -> tuple[Finding, ...]:
        """The findings that stop a run; `fail_on` replaces what the recipe says."""
        least = RANK.index(fail_on or self.recipe.inspect.fail_on)
        return tuple(f for f in self.findings if RANK.index(f.level) >= least)

    @cached_property
    def stop_tokens(self) -> tuple[str, ...]:
        """The stop tokens that are trained, as text."""
        texts = self.prepared.vocabulary
        return tuple(texts.text(np.array([token])) for token in self.facts.stop_ids)

    def summary(self) -> dict[str, Any]:
        """The facts for a record: no rows."""
        facts = self.facts
        return {
            "rows": facts.rows,
            "sequences": facts.sequences,
            "tokens": facts.tokens,
            "trained_tokens": facts.trained_tokens,
            "trained_share": round(facts.trained_share, 6),
            "shortest": facts.shortest,
            "median": facts.median,
            "longest": facts.longest,
            "traced_share": round(facts.traced / facts.sequences, 6) if facts.sequences else 0.0,
            "stop_ids": facts.stop_ids,
            "stop_tokens": list(self.stop_tokens),
            "ends_with_stop": facts.ends_with_stop,
            "starts_with_bos": facts.starts_with_bos,
            "cut": facts.cut,
            "dropped": facts.dropped,
            "level": self.level,
        }

    def place(self, part: Sequences, at: int) -> str:
        """`file:line` of the source row of a sequence; empty if it is not known.

        Files below the current folder are named from there.
        """
        number = int(part.files[at])
        if number < 0:
            return ""
        file, by_line = self.gathered.files[number]
        line = int(part.lines[at])
        file = file.removeprefix(f"{Path.cwd()}{os.sep}")
        return f"{file}:{line}" if by_line else f"{file} (row {line})"


def judge(subject: Subject) -> Report:
    """The report on prepared data; what was gathered before is taken from beside the data.

    Raises:
        LabelError: the data cannot be read.
    """
    key = _key(subject)
    gathered = _kept(subject.dataset, key)
    if gathered is None:
        with _no_collection():
            gathered = gather(subject)
        _keep(subject.dataset, key, gathered)
    prepared = subject.prepared
    judged = verdict(gathered.facts, subject.recipe, prepared.vocabulary)
    return Report(subject.recipe, prepared, gathered, judged)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small tuples, none of them in a cycle: looking for cycles costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json",
    "generation_config.json",
)  # fmt: skip
"""Files of the tokenizer and of the base that the facts depend on; people edit them."""


def _key(subject: Subject) -> str:
    """What the facts depend on besides the prepared data itself, which is never changed."""
    state = subject.dataset / "state.json"
    facts = {
        "version": [VERSION, _code()],
        "data": subject.recipe.data.model_dump(mode="json"),
        "stage": subject.recipe.training.stage,
        "tokens": subject.recipe.tokens.model_dump(mode="json"),
        "paths": [*subject.sources, *subject.validation_sources, subject.base],
        "prepared": [str(subject.dataset), state.stat().st_mtime_ns if state.is_file() else 0],
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns]
                  for f in sorted(subject.dataset.glob("*.arrow"))],
        "beside": [_stamp(folder / name) for folder in (subject.tokenizer, Path(subject.base))
                   for name in BESIDE],
        "there": [Path(source).exists() for source in subject.sources],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _stamp(file: Path) -> list[int]:
    """Size and time of a file; empty if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


@cache
def _code() -> str:
    """A digest of what gathers facts: another release may see more."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _keep(folder: Path, key: str, gathered: Gathered) -> None:
    """Beside the data, if that can be written to."""
    arrays: dict[str, Any] = {f"failing/{code}": rows for code, rows in gathered.failing.items()}
    for part in gathered.parts:
        for name in COLUMNS:
            arrays[f"{part.part}/{name}"] = getattr(part, name)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    try:
        write_atomic(folder / ARRAYS, content.getvalue())
        document = {
            "key": key,
            "arrays": hashlib.sha256(content.getbuffer()).hexdigest(),
            "parts": [part.part for part in gathered.parts],
            "files": [list(file) for file in gathered.files],
            "facts": asdict(gathered.facts),
        }
        write_json(folder / FACTS, document)
    except LaunchError:
        return  # a folder of somebody else: looked at anew each time


COLUMNS = ("rows", "lengths", "padding", "trained", "origins", "files", "lines")


def _kept(folder: Path, key: str) -> Gathered | None:
    document = read_json(folder / FACTS)
    if not isinstance(document, dict) or document.get("key") != key:
        return None
    try:
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != document["arrays"]:
            return None  # another process is writing, or has died
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = tuple(
                Sequences(name, *(arrays[f"{name}/{column}"] for column in COLUMNS))
                for name in document["parts"]
            )
            failing = {
                name.removeprefix("failing/"): arrays[name]
                for name in arrays.files
                if name.startswith("failing/")
            }
        files = tuple((file, by_line) for file, by_line in document["files"])
        return Gathered(_facts(document["facts"]), parts, files, failing)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(document: Mapping[str, Any]) -> Facts:
    values = dict(document)
    values["sources"] = [SourceFacts(**source) for source in values["sources"]]
    return Facts(**values)
