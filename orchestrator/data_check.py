"""What can be seen of local data without any ML import: it is there, parses, has its columns.

Findings: `FT301` not there, `FT302` no rows, `FT303` a row cannot be read, `FT304` a column is
missing, `FT305` a value of the wrong type, `FT306` nothing to learn in a row. Rows are streamed;
each kind of mistake is reported once per source, with its first places and a count.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.findings import Finding, Place
from orchestrator.recipe.models import ColumnRole, Recipe, Source, column
from orchestrator.recipe.sources import local_path, looks_local

Row = dict[str, Any]
SHOWN = 3


@dataclass
class _Tally:
    """Mistakes by code and text, with where they were first seen."""

    places: dict[tuple[str, str, str], list[Place]] = field(
        default_factory=lambda: defaultdict(list)
    )
    counts: dict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, code: str, message: str, place: Place, fix: str = "") -> None:
        key = (code, message, fix)
        self.counts[key] += 1
        if len(self.places[key]) < SHOWN:
            self.places[key].append(place)

    def findings(self, name: str) -> Iterator[Finding]:
        for (code, message, fix), count in self.counts.items():
            first, *others = self.places[(code, message, fix)]
            more = ""
            if count > 1:
                lines = ", ".join(str(place.line) for place in others)
                more = f" ({count} rows; also lines {lines}{', ...' if count > SHOWN else ''})"
            yield Finding(code, "error", f"{message}{more}", first, field=name, fix=fix)


def check_data(recipe: Recipe, beside: Path) -> list[Finding]:
    """Findings about every local source of a recipe; hub ids are left alone."""
    found: list[Finding] = []
    for group in ("sources", "validation_sources"):
        for index, source in enumerate(getattr(recipe.data, group)):
            found += _check_source(source, beside, f"data.{group}[{index}]")
    return found


def _check_source(source: Source, beside: Path, name: str) -> Iterator[Finding]:
    if source.format == "registered":
        return  # a name, not a path
    path = local_path(source.path, beside)
    if path is None:
        if looks_local(source.path):
            yield Finding(
                "FT301",
                "error",
                f"there is no data at {source.path}",
                field=f"{name}.path",
                fix=f"paths count from the recipe's folder ({beside}) or from here",
            )
        return
    tally, rows = _Tally(), 0
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.suffix in READERS)
    )
    if not files:
        yield Finding("FT302", "error", f"no data files in {path}", field=f"{name}.path")
        return
    for file in files:
        reader = READERS.get(file.suffix.lower())
        if reader is None:
            yield Finding(
                "FT303",
                "error",
                f"{file.name}: not a data file that is understood",
                field=f"{name}.path",
                fix=f"use {', '.join(sorted(READERS))}",
            )
            continue
        for place, row in reader(file, tally):
            rows += 1
            _check_row(row, source, place, tally)
            if source.samples and rows >= source.samples:
                break
    yield from tally.findings(name)
    if not rows and not tally.counts:
        yield Finding("FT302", "error", "the data set is empty", Place(str(path)), field=name)


def _jsonl(file: Path, tally: _Tally) -> Iterator[tuple[Place, Any]]:
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            place = Place(str(file), number)
            try:
                yield place, json.loads(line)
            except UnicodeDecodeError:
                tally.add("FT303", "not UTF-8 text", place, "save the file as UTF-8")
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", str(error))
                tally.add("FT303", f"not a JSON object on one line: {reason}", place)


def _json(file: Path, tally: _Tally) -> Iterator[tuple[Place, Any]]:
    with file.open("rb") as handle:
        start = handle.read(64).lstrip()
    if not start.startswith(b"["):
        yield from _jsonl(file, tally)
        return
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        tally.add("FT303", f"not JSON: {error}", Place(str(file), line))
        return
    for number, row in enumerate(rows, 1):
        yield Place(f"{file} (row {number})"), row


def _arrow_batches(file: Path, tally: _Tally) -> Iterator[tuple[Place, Any]]:
    import pyarrow as pa

    try:
        number = 0
        for batch in _batches(file):
            for row in batch.to_pylist():
                number += 1
                yield Place(f"{file} (row {number})"), row
    except (pa.ArrowException, OSError) as error:
        tally.add("FT303", f"cannot be read: {error}", Place(str(file)))


def _batches(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(file).iter_batches(batch_size=2048)
    elif file.suffix == ".csv":
        from pyarrow import csv

        yield from csv.open_csv(file)
    else:
        with pa.memory_map(str(file)) as source:
            yield from pa.ipc.open_stream(source)


def _text(file: Path, tally: _Tally) -> Iterator[tuple[Place, Any]]:
    with file.open(encoding="utf-8", errors="replace") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield Place(str(file), number), {"text": line}


READERS: dict[str, Callable[[Path, _Tally], Iterator[tuple[Place, Any]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _arrow_batches,
    ".csv": _arrow_batches,
    ".arrow": _arrow_batches,
    ".txt": _text,
}


def _check_row(row: Any, source: Source, place: Place, tally: _Tally) -> None:
    if not isinstance(row, dict):
        tally.add("FT303", "a row must be an object with columns", place)
        return
    match source.format:
        case "alpaca":
            _needs_text(row, source, "instruction", place, tally)
            _needs_text(row, source, "output", place, tally, answer=True)
        case "text":
            _needs_text(row, source, "text", place, tally, answer=True)
        case "messages" | "sharegpt":
            messages = _needs(row, source, "messages", place, tally)
            if messages is not None:
                _check_messages(messages, source, place, tally, answered=True)
        case "preference":
            messages = _needs(row, source, "messages", place, tally)
            if messages is not None:
                _check_messages(messages, source, place, tally, answered=False)
            for role in ("chosen", "rejected"):
                answer = _needs(row, source, role, place, tally)
                if answer is not None:
                    _check_messages([answer], source, place, tally, answered=True)
        case "kto":
            _needs_text(row, source, "prompt", place, tally)
            _needs_text(row, source, "completion", place, tally, answer=True)
            label = _needs(row, source, "label", place, tally)
            if label is not None and not isinstance(label, bool):
                tally.add("FT305", f"{column(source, 'label')!r} must be true or false", place)


def _needs(row: Row, source: Source, role: ColumnRole, place: Place, tally: _Tally) -> Any:
    name = column(source, role)
    if name not in row:
        there = ", ".join(str(key) for key in list(row)[:8])
        tally.add(
            "FT304",
            f"column {name!r} ({role}) is missing; the row has: {there}",
            place,
            f"name it in the recipe: columns: {{{role}: ...}}",
        )
        return None
    if row[name] is None:
        tally.add("FT305", f"{name!r} is null", place)
    return row[name]


def _needs_text(
    row: Row, source: Source, role: ColumnRole, place: Place, tally: _Tally, answer: bool = False
) -> None:
    value = _needs(row, source, role, place, tally)
    if value is None:
        return
    if not isinstance(value, str):
        tally.add(
            "FT305", f"{column(source, role)!r} must be text, not {type(value).__name__}", place
        )
    elif answer and not value.strip():
        tally.add("FT306", f"{column(source, role)!r} is empty: nothing to learn", place)


def _check_messages(
    messages: Any, source: Source, place: Place, tally: _Tally, *, answered: bool
) -> None:
    role_key, content_key = column(source, "role") or "", column(source, "content") or ""
    if not isinstance(messages, list):
        tally.add("FT305", f"{column(source, 'messages')!r} must be a list of messages", place)
        return
    sharegpt = source.format == "sharegpt"
    assistant = source.roles.get("assistant", "gpt" if sharegpt else "assistant")
    has_answer = False
    for message in messages:
        if not isinstance(message, dict) or role_key not in message or content_key not in message:
            tally.add(
                "FT304",
                f"a message needs {role_key!r} and {content_key!r}",
                place,
                "columns: {role: ..., content: ...} name them",
            )
            return
        content = message[content_key]
        if not isinstance(content, str):
            tally.add("FT305", f"{content_key!r} of a message must be text", place)
        elif message[role_key] == assistant:
            has_answer = has_answer or bool(content.strip())
            if not content.strip():
                tally.add("FT306", "an assistant message is empty", place)
    if answered and not has_answer:
        tally.add(
            "FT306",
            f"no message of the role {assistant!r}: nothing to learn",
            place,
            "roles: {assistant: ...} names it",
        )
