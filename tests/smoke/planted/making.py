"""Preparing cases with the real backends, all cases of a backend in one process of it."""

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from orchestrator.environments.environment import find, process_environment
from orchestrator.recipe.load import Loaded, from_document
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.yaml_source import parse
from orchestrator.standalone import standalone
from orchestrator.yaml_out import dump
from tests.helpers import ROOT
from tests.smoke.planted.bases import Base, write_base
from tests.smoke.planted.rows import Row

Config = dict[str, Any]
How = Literal["rows", "template", "tokenizer", "base", "recipe", "configuration", "arrow"]
PROBE = ROOT / "orchestrator" / "probe"
DRIVER = Path(__file__).with_name("driver.py")


@dataclass(frozen=True)
class Case:
    """Data, a base and a recipe, prepared by one backend, with at most one mistake."""

    name: str
    backend: str
    base: Base
    rows: list[Row]
    code: str = ""
    """The mistake; empty for sound data."""
    how: How = "rows"
    """Where the mistake is made."""
    also: frozenset[str] = frozenset()
    """Codes that the mistake implies."""
    unseen: frozenset[str] = frozenset()
    """Codes that the second look cannot judge here."""
    format: str = "messages"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe by their dotted names."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its source."""
    validation: list[Row] = field(default_factory=list)
    edit: Callable[[Config], None] | None = None
    """Changes the rendered configuration, as one does by hand."""
    edit_data: Callable[[Config], None] | None = None
    """Changes an entry of axolotl's `datasets` or of `dataset_info.json`."""
    rewrite: Callable[["Made"], None] | None = None
    """Changes the prepared files afterwards."""

    @property
    def id(self) -> str:
        """A name for folders and tests."""
        return f"{self.backend}-{self.name}"


@dataclass(frozen=True)
class Made:
    """A case with its files."""

    case: Case
    folder: Path
    recipe: Recipe
    base: Path
    answer: dict[str, Any]

    @property
    def dataset(self) -> Path:
        """The prepared training data."""
        return Path(self.answer["dataset"]["train"])

    @property
    def validation(self) -> Path | None:
        """The prepared validation data."""
        name = self.answer["dataset"]["validation"]
        return Path(name) if name else None

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the backend used."""
        return Path(self.answer["tokenizer"])

    @property
    def sources(self) -> tuple[str, ...]:
        """The files with the rows."""
        return (str(self.folder / "train.jsonl"),)

    @property
    def validation_sources(self) -> tuple[str, ...]:
        """The files with the rows to validate on."""
        return (str(self.folder / "validation.jsonl"),) if self.case.validation else ()


def make_all(cases: Iterable[Case], folder: Path) -> dict[str, Made]:
    """Every case, prepared; the backends work side by side."""
    cases = list(cases)
    corpus = folder / "corpus.jsonl"
    write_rows(corpus, [row for case in cases[:1] for row in case.rows])
    _corpus(corpus, cases)
    bases = _Bases(folder / "bases", corpus)
    started = []
    loaded = {case.id: _write(case, folder / case.id, bases.path(case.base)) for case in cases}
    for backend in sorted({case.backend for case in cases}):
        mine = [case for case in cases if case.backend == backend]
        started.append(_start(backend, mine, folder))
    for process, log in started:
        assert process.wait() == 0, log.read_text("utf-8")
    made = {}
    for case in cases:
        answer = json.loads((folder / case.id / "result.json").read_text("utf-8"))
        assert "error" not in answer, f"{case.id}: {answer['error']}"
        one = Made(case, folder / case.id, loaded[case.id], bases.path(case.base), answer)
        if case.rewrite:
            case.rewrite(one)
        made[case.id] = one
    return made


class _Bases:
    """Bases by what they are, each written once."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.folder, self.corpus = folder, corpus
        self.written: dict[str, Path] = {}
        folder.mkdir()

    def path(self, base: Base) -> Path:
        key = repr(base)
        if key not in self.written:
            folder = self.folder / f"{base.family}-{len(self.written)}"
            self.written[key] = write_base(base, [self.corpus], folder)
        return self.written[key]


def _corpus(path: Path, cases: list[Case]) -> None:
    """The text that the tokenizers are trained on: rows of every format once."""
    seen: dict[str, list[Row]] = {}
    for case in cases:
        if not case.code:
            seen.setdefault(case.format, case.rows)
    write_rows(path, [row for rows in seen.values() for row in rows])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Rows as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _source(case: Case, file: Path) -> dict[str, Any]:
    return {"path": str(file), "format": case.format, **case.source}


def _loaded(case: Case, folder: Path, base: Path) -> Loaded:
    document: dict[str, Any] = {
        "name": case.name,
        "backend": case.backend,
        "model": {"base": str(base), "dtype": "float32"},
        "data": {"sources": [_source(case, folder / "train.jsonl")], "sequence_length": 1024},
        "adapter": {"type": "lora"},
        "training": {"epochs": 1, "learning_rate": 1e-4},
    }
    if case.validation:
        document["data"]["validation_sources"] = [_source(case, folder / "validation.jsonl")]
        document["training"]["evaluate"] = "epoch"
    for field_, value in case.recipe.items():
        *parents, last = field_.split(".")
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    parsed, findings = parse(dump(document), "recipe.yaml")
    return from_document(parsed, findings, folder / "recipe.yaml")


def _write(case: Case, folder: Path, base: Path) -> Recipe:
    """The rows, the backend's files as ft renders them, and what was changed in them by hand."""
    folder.mkdir()
    write_rows(folder / "train.jsonl", case.rows)
    write_rows(folder / "validation.jsonl", case.validation)
    loaded = _loaded(case, folder, base)
    rendered, _ = standalone(loaded)
    files = {file.name: file.text for file in rendered.files}
    config = yaml.safe_load(files["preprocess.yaml"])
    if case.backend == "llamafactory":
        info = json.loads(files["dataset_info.json"])
        config["dataset_dir"] = str(folder)
        if case.edit_data:
            case.edit_data(info["train_0"])
        (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    elif case.edit_data:
        case.edit_data(config["datasets"][0])
    if case.edit:
        case.edit(config)
    config["output_dir"] = str(folder / "training")
    (folder / "preprocess.yaml").write_text(dump(config), encoding="utf-8")
    return loaded.recipe


def _start(backend: str, cases: list[Case], folder: Path) -> tuple["subprocess.Popen[bytes]", Path]:
    requests = [
        {
            "task": "preprocess",
            "backend": backend,
            "config": str(folder / case.id / "preprocess.yaml"),
            "prepared": str(folder / case.id / "prepared"),
            "result": str(folder / case.id / "result.json"),
        }
        for case in cases
    ]
    listed = folder / f"{backend}.json"
    listed.write_text(json.dumps(requests), encoding="utf-8")
    environment, log = find(backend), folder / f"{backend}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(environment.python), str(DRIVER), str(PROBE), str(listed)],
            cwd=folder,
            env=process_environment(
                environment,
                offline=True,
                # of its own: the usual one is locked by whatever else prepares data just now
                extra={"HF_DATASETS_CACHE": str(folder / f"cache-{backend}")},
            ),
            stdout=stream,
            stderr=stream,
        )
    return process, log
