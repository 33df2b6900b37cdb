"""Rows of data files, one at a time, whatever their size.

A reader sets the tally's `row` and yields what it parsed; what cannot be parsed is tallied as
`FT303`. `watch` is told how many bytes have been read, for a progress bar.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.data_check.tally import Tally

Watch = Callable[[int], None]
Reader = Callable[[Path, Tally, Watch], Iterator[Any]]

CHUNK = 1 << 20
EVERY = 2048
"""Rows between two reports to `watch`."""


def jsonl(file: Path, tally: Tally, watch: Watch) -> Iterator[Any]:
    """One JSON value per line.

    The decoder's inner function is half the work of `json.loads`, which reads what it does not.
    """
    decoder: Any = json.JSONDecoder()
    scan, done = decoder.scan_once, 0
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            tally.row, tally.raw = number, line
            done += len(line)
            if not number % EVERY:
                watch(done)
            try:
                text = line.decode()
                try:
                    row, end = scan(text, 0)
                    plain = text[end:] in ("\n", "")
                except StopIteration:
                    plain = False
                yield row if plain else json.loads(text)
            except UnicodeDecodeError:
                tally.add("FT303", "not UTF-8 text", "save the file as UTF-8")
            except (ValueError, RecursionError) as error:
                if not line.strip():
                    continue
                reason = getattr(error, "msg", str(error))
                tally.add("FT303", f"not a JSON object on one line: {reason}")


def any_json(file: Path, tally: Tally, watch: Watch) -> Iterator[Any]:
    """A list of rows, or one row per line."""
    with file.open("rb") as handle:
        start = handle.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        yield from jsonl(file, tally, watch)
        return
    tally.by_line = b"\n" in start
    try:
        yield from _items(file, tally, watch)
    except UnicodeDecodeError:
        tally.add("FT303", "not UTF-8 text", "save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        tally.add("FT303", f"not JSON: {getattr(error, 'msg', error)}")


def _items(file: Path, tally: Tally, watch: Watch) -> Iterator[Any]:
    """The items of a JSON list, decoded from a window that moves over the file."""
    decode = json.JSONDecoder().raw_decode
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    text, at, line, done, size, ended = "", 0, 1, 0, CHUNK, False
    opened = after_item = False
    with file.open("rb") as handle:
        while True:
            start = at
            while at < len(text) and (text[at].isspace() or (text[at] == "," and after_item)):
                after_item = after_item and text[at] != ","
                at += 1
            if at < len(text) and not opened and text[at] == "[":
                opened, at = True, at + 1
                line += text.count("\n", start, at)
                continue
            line += text.count("\n", start, at)
            if at < len(text) and text[at] == "]":
                break
            try:
                item, end = decode(text, at)
                whole = ended or end < len(text)  # `12` may go on as `123`
            except json.JSONDecodeError as error:
                if ended or (error.pos < len(text) - 64 and "Unterminated" not in error.msg):
                    tally.row = line + text.count("\n", at, error.pos) if tally.by_line else 0
                    raise
                whole = False
            if whole:
                if after_item:
                    raise ValueError("a comma is missing between two rows")
                tally.row = line if tally.by_line else tally.row + 1
                yield item
                line += text.count("\n", at, end)
                at, after_item, size = end, True, CHUNK
                continue
            raw = handle.read(size)
            done, size, ended = done + len(raw), size * 2, not raw
            watch(done)
            text, at = text[at:] + decoder.decode(raw, final=not raw), 0


def arrow(file: Path, tally: Tally, watch: Watch) -> Iterator[Any]:
    """Parquet, CSV and Arrow files, batch by batch."""
    import pyarrow as pa

    tally.by_line = False
    try:
        number = done = 0
        for batch in _batches(file):
            done += batch.nbytes
            watch(done)
            for row in batch.to_pylist():
                number += 1
                tally.row = number
                yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        tally.add("FT303", f"cannot be read: {str(error).splitlines()[0][:200]}")


def _batches(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(file).iter_batches(batch_size=1024)
    elif file.suffix.lower() == ".csv":
        from pyarrow import csv

        quoted = csv.ParseOptions(newlines_in_values=True)
        yield from csv.open_csv(file, parse_options=quoted)
    else:
        with pa.memory_map(str(file)) as source:
            try:
                stream = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                whole = pa.ipc.open_file(source)
                for index in range(whole.num_record_batches):
                    yield from _slices(whole.get_batch(index))
                return
            for batch in stream:
                yield from _slices(batch)


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, 1024):
        yield batch.slice(start, 1024)


def text(file: Path, tally: Tally, watch: Watch) -> Iterator[Any]:
    """Plain text, a row per line."""
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            tally.row = number
            if not number % EVERY:
                watch(handle.tell())
            try:
                content = line.decode()
            except UnicodeDecodeError:
                tally.add("FT303", "not UTF-8 text", "save the file as UTF-8")
                continue
            if content.strip():
                yield {"text": content}


READERS: dict[str, Reader] = {
    ".jsonl": jsonl,
    ".json": any_json,
    ".parquet": arrow,
    ".csv": arrow,
    ".arrow": arrow,
    ".txt": text,
}

NOT_DATA = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json"}


def data_files(path: Path) -> list[Path]:
    """The data files of a source: itself, or those in a folder.

    What describes a saved data set is no data, nor is anything hidden.
    """
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in READERS
        and file.name not in NOT_DATA
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    arrows = [file for file in found if file.suffix.lower() == ".arrow"]
    return arrows or found
