"""What can be seen of local data without any ML import: it is there, parses, has its columns.

Findings: `FT301` not there, `FT302` no rows, `FT303` a row cannot be read, `FT304` a column is
missing, `FT305` a value of the wrong type, `FT306` nothing to learn in a row, `FT307` turns in an
order that the backend or the template refuses, `FT308` a role that nobody knows, `FT309` copies,
`FT310` chosen and rejected are the same. Rows are streamed; each kind of mistake is reported once
per source, with its first places and a count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.data_check.reading import READERS, data_files
from orchestrator.data_check.rules import row_rule
from orchestrator.data_check.tally import Tally
from orchestrator.findings import Finding, Place
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sources import local_path, looks_local

Progress = Callable[[str, int, int], None]
"""Told the name of a file, the bytes read of it, and its size."""

BUILDERS = {"json": ".json", "csv": ".csv", "parquet": ".parquet", "arrow": ".arrow",
            "text": ".txt"}  # fmt: skip
"""Kinds of files by the names that `datasets` gives them, as the suffix that is read so."""

REMEMBERED = 200_000
"""Rows whose copies are noticed; more would cost memory that grows with the data."""


@dataclass
class DataReport:
    """Findings, and the number of rows of each source that is on this machine."""

    findings: list[Finding] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def total(self, recipe: Recipe) -> int | None:
        """Rows to train on, validation included; None when that cannot be known."""
        data = recipe.data
        if data.streaming or data.mixing or data.weights or data.deduplicate or data.min_length:
            return None
        if data.samples or any(s.shards or s.skip for s in data.sources):
            return None
        names = [f"data.sources[{i}]" for i in range(len(recipe.data.sources))]
        return sum(self.rows[n] for n in names) if all(n in self.rows for n in names) else None


def check_data(recipe: Recipe, beside: Path) -> list[Finding]:
    """Findings about every local source of a recipe; hub ids are left alone."""
    return read_data(recipe, beside).findings


def read_data(recipe: Recipe, beside: Path, progress: Progress | None = None) -> DataReport:
    """Read every local source of a recipe once."""
    report = DataReport()
    for group in ("sources", "validation_sources"):
        for index, source in enumerate(getattr(recipe.data, group)):
            name = f"data.{group}[{index}]"
            report.findings += _check_source(recipe, source, beside, name, report, progress)
    return report


def _check_source(
    recipe: Recipe,
    source: Source,
    beside: Path,
    name: str,
    report: DataReport,
    progress: Progress | None,
) -> Iterator[Finding]:
    if source.format == "registered":
        return  # a name, not a path
    path = local_path(source.path, beside)
    if path is None and source.files and source.path in BUILDERS:
        path = beside  # `path: json` with `files`: the kind of the files, not a place
    if path is None:
        if looks_local(source.path):
            yield Finding(
                "FT301",
                "error",
                f"there is no data at {source.path}",
                field=f"{name}.path",
                fix=f"paths count from the recipe's folder ({beside}) or from here",
            )
        elif "/" in source.path and local_path(source.path.partition("/")[0], beside):
            yield Finding(
                "FT301",
                "warning",
                f"{source.path} is taken for a hub id, though there is a folder "
                f"{source.path.partition('/')[0]} here",
                field=f"{name}.path",
                fix=f"./{source.path} if a folder is meant; it is not there",
            )
        return
    if any("://" in file for file in _named(source)):
        return  # somewhere else
    files, missing = _files(source, path, beside)
    if missing:
        yield Finding(
            "FT301",
            "error",
            f"there is no file {missing}",
            field=f"{name}.files",
            fix=f"files count from {path}, from the recipe's folder ({beside}) or from here",
        )
        return
    if not files:
        yield Finding("FT302", "error", f"no data files in {path}", field=f"{name}.path")
        return
    kind = BUILDERS.get(source.file_type or source.path)
    unknown = [file.name for file in files if not kind and file.suffix.lower() not in READERS]
    if unknown:
        yield Finding(
            "FT303",
            "error",
            f"{unknown[0]}: not a data file that is understood",
            field=f"{name}.path",
            fix=f"use {', '.join(sorted(READERS))}",
        )
        return
    tally = Tally()
    rows, copies = _read(recipe, source, files, tally, progress)
    yield from tally.findings(name)
    if not rows and not tally.counts:
        yield Finding("FT302", "error", "the data set is empty", Place(str(path)), field=name)
        return
    if copies >= 20 and copies * 50 >= min(rows, REMEMBERED):
        yield Finding(
            "FT309",
            "note",
            f"{copies:,} of {min(rows, REMEMBERED):,} rows are copies of earlier ones",
            Place(str(path)),
            field=name,
            fix="copies weigh more than other rows; remove them unless that is meant",
        )
    report.rows[name] = rows


def _files(source: Source, path: Path, beside: Path) -> tuple[list[Path], str]:
    """The files of a source, and one that it names and that is not there."""
    named = _named(source)
    if not named:
        return data_files(path), ""
    files: list[Path] = []
    for name in named:
        if any(mark in name for mark in "*?["):
            found = sorted(file for file in path.glob(name.removeprefix("./")) if file.is_file())
        else:
            one = local_path(name, path) or local_path(name, beside)
            found = [one] if one and one.is_file() else []
        if not found:
            return [], name
        files += found
    return files, ""


def _named(source: Source) -> tuple[str, ...]:
    return (source.files,) if isinstance(source.files, str) else tuple(source.files or ())


def _read(
    recipe: Recipe, source: Source, files: list[Path], tally: Tally, progress: Progress | None
) -> tuple[int, int]:
    """Check every row; the number of rows, and how many are copies of earlier ones."""
    rule = row_rule(recipe, source, tally)
    seen: set[int] = set()
    rows = known = 0
    limit = source.samples or 0
    for file in files:
        tally.file, tally.row, tally.by_line, tally.raw = file, 0, True, b""
        size = file.stat().st_size

        def watch(done: int, file: Path = file, size: int = size) -> None:
            if progress:
                progress(file.name, min(done, size), size)

        kind = BUILDERS.get(source.file_type or source.path)
        for row in READERS[kind or file.suffix.lower()](file, tally, watch):
            rows += 1
            if isinstance(row, dict):
                rule(row)
                if rows <= REMEMBERED:
                    known += 1
                    seen.add(hash(tally.raw or str(row)))
            else:
                tally.add("FT303", "a row must be an object with columns")
            if rows == limit:
                return rows, known - len(seen)
    return rows, known - len(seen)
