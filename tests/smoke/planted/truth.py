"""What is trained in prepared data, found without ft's own label code.

Tokens are turned back into the bytes that they stand for, the contents of the source row are
searched in them one after the other, and what is trained is then counted by what it belongs to.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from tests.smoke.planted.rows import Row

IGNORED = -100
SPACE = "\u2581"
TAGS = (b"", b"<think>", b"</think>")
PARTS = ("", "chosen_", "rejected_")


def byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies use for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


LETTERS = byte_letters()


class Words:
    """A tokenizer as bytes per token."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        added = self.tokenizer.get_added_tokens_decoder()
        self.added = {token: entry.content for token, entry in added.items()}
        self.special = {token for token, entry in added.items() if entry.special}
        kind = json.loads(self.tokenizer.to_str())
        self.bytelevel = "ByteLevel" in json.dumps(kind["decoder"])
        self.nfc = kind["normalizer"] is not None

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; of one that is unknown, none."""
        if token in self.added:
            return str(self.added[token]).encode()
        text = self.tokenizer.id_to_token(token) or ""
        if self.bytelevel:
            return bytes(LETTERS[letter] for letter in text)
        if text.startswith("<0x") and len(text) == 6:
            return bytes([int(text[3:5], 16)])
        return str(text).replace(SPACE, " ").encode()

    def silent(self, ids: list[int]) -> frozenset[int]:
        """Positions of whitespace and of thought tags."""
        pieces = [self.bytes_of(token).strip() for token in ids]
        return frozenset(p for p, piece in enumerate(pieces) if piece in TAGS)

    def needle(self, text: str) -> bytes:
        """A text as the tokenizer sees it, without whitespace at its ends."""
        text = text.strip()
        return (unicodedata.normalize("NFC", text) if self.nfc else text).encode()


def read_table(folder: Path) -> pa.Table:
    """A saved data set."""
    state = json.loads((folder / "state.json").read_text("utf-8"))
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    return pa.concat_tables([pa.ipc.open_stream(file.read_bytes()).read_all() for file in files])


def write_table(folder: Path, table: pa.Table) -> None:
    """Replace a saved data set, in one file."""
    path = folder / "state.json"
    state = json.loads(path.read_text("utf-8"))
    name, *others = [entry["filename"] for entry in state["_data_files"]]
    with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    for other in others:
        (folder / other).unlink()
    state["_data_files"] = [{"filename": name}]
    path.write_text(json.dumps(state), encoding="utf-8")


def change_rows(folder: Path, change: Callable[[int, dict[str, Any]], None]) -> None:
    """Change every row of a saved data set in place."""
    table = read_table(folder)
    rows = table.to_pylist()
    for index, row in enumerate(rows):
        change(index, row)
    write_table(folder, pa.Table.from_pylist(rows, schema=table.schema))


@dataclass
class Turn:
    """One message, found in a sequence: its whole tokens, and for an answer its stop."""

    role: str
    tokens: list[int]
    """Positions of tokens that are wholly inside of the content."""
    border: list[int]
    """Positions of tokens that are only partly in it."""
    stop: int = -1
    """Position of the special token right behind an answer."""


@dataclass
class Sequence:
    """A prepared sequence beside its source row."""

    source: int
    ids: list[int]
    labels: list[int]
    turns: list[Turn]
    silent: frozenset[int]
    """Positions of whitespace, which templates add and pieces begin with, and of thought tags,
    which a template that has them writes around no thought."""

    @property
    def template(self) -> list[int]:
        """Positions of header tokens: of no content, no stop, not the one behind a stop."""
        taken = {p for turn in self.turns for p in (*turn.tokens, *turn.border, turn.stop)}
        ends = {turn.stop + step for turn in self.turns if turn.stop >= 0 for step in (1, 2)}
        left = taken | ends | self.silent
        return [p for p in range(len(self.ids)) if p not in left]

    def trained(self, positions: list[int]) -> int:
        """How many of these are trained."""
        return sum(self.labels[p] != IGNORED for p in positions)


def contents(row: Row, part: str) -> list[tuple[str, str, bool]]:
    """Role, text and whether it should be trained, in the order of the prompt."""
    if "output" in row:
        asked = [row["instruction"], row["input"]]
        return [("user", text, False) for text in asked if text] + [
            ("assistant", row["output"], True)
        ]
    if not part:
        return [(m["role"], m["content"], m["role"] == "assistant") for m in row["messages"]]
    return [(m["role"], m["content"], False) for m in row["messages"]] + [
        ("assistant", row[part.rstrip("_")]["content"], True)
    ]


def locate(words: Words, ids: list[int], wanted: list[tuple[str, str, bool]]) -> list[Turn] | None:
    """Find contents in a sequence, one after the other; None if one is not there."""
    pieces = [words.bytes_of(token) for token in ids]
    ends = list(accumulate(len(piece) for piece in pieces))
    text = b"".join(pieces)
    turns, cursor = [], 0
    for role, content, wants in wanted:
        needle = words.needle(content)
        start = text.find(needle, cursor)
        if start < 0:
            return None
        cursor = start + len(needle)
        turns.append(_turn(words, ids, (pieces, ends), (start, cursor), role))
        if not wants:
            turns[-1].stop = -1
            if role == "assistant":
                turns[-1].role = "history"
    return turns


def _turn(
    words: Words,
    ids: list[int],
    text: tuple[list[bytes], list[int]],
    span: tuple[int, int],
    role: str,
) -> Turn:
    (pieces, ends), (start, end) = text, span
    inside, border = [], []
    for position, piece_end in enumerate(ends):
        begin = piece_end - len(pieces[position])
        if begin >= start and piece_end <= end and piece_end > begin:
            inside.append(position)
        elif begin < end and piece_end > start:
            border.append(position)
    following = max([*inside, *border]) + 1
    found = following < len(ids) and ids[following] in words.special
    stop = following if role == "assistant" and found else -1
    return Turn(role, inside, border, stop)


def sequences(folder: Path, tokenizer: Path, rows: list[Row]) -> Iterator[Sequence]:
    """Every prepared sequence with its source row; sequences of no row are left out."""
    words = Words(tokenizer)
    left = dict(enumerate(rows))
    for prepared in read_table(folder).to_pylist():
        source = -1
        for part in PARTS:
            if part + "input_ids" not in prepared:
                continue
            ids, labels = prepared[part + "input_ids"], prepared[part + "labels"]
            for index in [source] if source >= 0 else list(left):
                turns = locate(words, ids, contents(rows[index], part))
                if turns is not None:
                    source = index
                    left.pop(index, None)
                    yield Sequence(index, ids, labels, turns, words.silent(ids))
                    break


@dataclass
class Summary:
    """What a prepared data set trains, counted."""

    found: int = 0
    answers: int = 0
    silent: int = 0
    """Answers of which nothing is trained."""
    partly: int = 0
    stopless: int = 0
    """Answers whose stop is missing or not trained."""
    foreign: int = 0
    """Tokens of user and system texts that are trained."""
    template: int = 0
    """Tokens of headers that are trained."""
    empty: int = 0
    """Sequences in which nothing is trained."""
    sources: list[int] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every answer is trained, with its stop, and nothing else."""
        wrong = self.silent + self.partly + self.stopless + self.foreign + self.template
        return self.answers > 0 and wrong + self.empty == 0


def summarize(folder: Path, tokenizer: Path, rows: list[Row]) -> Summary:
    """Count what a prepared data set trains."""
    result = Summary()
    for sequence in sequences(folder, tokenizer, rows):
        result.found += 1
        result.sources.append(sequence.source)
        result.empty += sequence.trained(list(range(len(sequence.ids)))) == 0
        result.template += sequence.trained(sequence.template)
        for turn in sequence.turns:
            trained = sequence.trained(turn.tokens)
            if turn.role != "assistant":
                result.foreign += trained
                continue
            result.answers += 1
            result.silent += trained == 0
            result.partly += 0 < trained < len(turn.tokens)
            result.stopless += turn.stop < 0 or sequence.labels[turn.stop] == IGNORED
    return result
