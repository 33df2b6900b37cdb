"""What is trained in prepared data, found without ft's own label code.

Tokens are turned back into the bytes that they stand for, the contents of the source row are
searched in them one after the other, and what is trained is then counted by what it belongs to.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from tests.smoke.planted.rows import Row, contents

IGNORED = -100
SPACE = "\u2581"
OPENING = b"<think>\n"
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
        self.known: dict[int, bytes] = {}

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; of one that is unknown, none."""
        if token not in self.known:
            self.known[token] = self._bytes_of(token)
        return self.known[token]

    def _bytes_of(self, token: int) -> bytes:
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
    """Position of the special token right behind the content."""
    opening: frozenset[int] = frozenset()
    """Positions of the tag that opens a thought, which prompts of reasoning models may hold."""


@dataclass
class Sequence:
    """A prepared sequence beside its source row, and where it lies: row, part, first token."""

    source: int
    row: int
    part: str
    start: int
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
        answers = [turn for turn in self.turns if turn.role == "assistant" and turn.stop >= 0]
        ends = {turn.stop + step for turn in answers for step in (1, 2)}
        left = taken | ends | self.silent
        return [p for p in range(len(self.ids)) if p not in left]

    def trained(self, positions: list[int]) -> int:
        """How many of these are trained."""
        return sum(self.labels[p] != IGNORED for p in positions)


@dataclass(frozen=True)
class Bytes:
    """A sequence as bytes: those of each token, where they end, all of them."""

    ids: list[int]
    pieces: list[bytes]
    ends: list[int]
    text: bytes


def as_bytes(words: Words, ids: list[int]) -> Bytes:
    """The bytes of a sequence."""
    pieces = [words.bytes_of(token) for token in ids]
    return Bytes(ids, pieces, list(accumulate(map(len, pieces))), b"".join(pieces))


def locate(words: Words, where: Bytes, wanted: list[tuple[str, str]]) -> list[Turn] | None:
    """Find contents in a sequence, one after the other; None if one is not there."""
    spans, cursor = [], 0
    for role, content in wanted:
        needle = words.needle(content)
        start = where.text.find(needle, cursor)
        if start < 0:
            return None
        cursor = start + len(needle)
        spans.append((role, start, cursor))
    return [_turn(words, where, span) for span in spans]


def _turn(words: Words, where: Bytes, span: tuple[str, int, int]) -> Turn:
    role, start, end = span
    ids, pieces = where.ids, where.pieces
    inside, border, opening = [], [], set()
    opened = start + len(OPENING) if where.text.startswith(OPENING, start) else start
    for position, piece_end in enumerate(where.ends):
        begin = piece_end - len(pieces[position])
        if begin >= start and piece_end <= end and piece_end > begin:
            inside.append(position)
            if begin < opened:
                opening.add(position)
        elif begin < end and piece_end > start:
            border.append(position)
    following = max([*inside, *border]) + 1
    while following < len(ids) and not pieces[following].strip():
        following += 1  # whitespace that the template did not trim
    found = following < len(ids) and ids[following] in words.special
    stop = following if found else -1
    return Turn(role, inside, border, stop, frozenset(opening))


def rows_of(folder: Path, words: Words) -> Iterator[dict[str, Any]]:
    """Prepared rows with ids and labels: those of LLaMA-Factory's packs one by one, axolotl's
    preference texts as TRL will tokenize them."""
    for number, row in enumerate(read_table(folder).to_pylist()):
        if "prompt" in row:
            yield {**dict(_tokenized(row, words)), "row": number, "start": 0}
            continue
        if "input_ids" in row and "labels" not in row:
            row["labels"] = list(row["input_ids"])  # pretraining: everything is trained
        bounds = (row.get("packing_params") or {}).get("sequence_boundaries") or []
        padding = (row.get("packing_params") or {}).get("right_padding_length") or 0
        if not bounds:
            yield {**row, "row": number, "start": 0}
        for start, end in pairwise(bounds[:-1] if padding else bounds):
            names = ("input_ids", "labels")
            yield {name: row[name][start:end] for name in names} | {"row": number, "start": start}


def _tokenized(row: dict[str, Any], words: Words) -> Iterator[tuple[str, list[int]]]:
    prompt = words.tokenizer.encode(row["prompt"], add_special_tokens=False).ids
    for part in ("chosen", "rejected"):
        answer = words.tokenizer.encode(row[part], add_special_tokens=False).ids
        yield f"{part}_input_ids", prompt + answer
        yield f"{part}_labels", [IGNORED] * len(prompt) + answer


def sequences(folder: Path, tokenizer: Path, rows: list[Row]) -> Iterator[Sequence]:
    """Every prepared sequence with its source row; sequences of no row are left out."""
    words = Words(tokenizer)
    left = dict(enumerate(rows))
    for prepared in rows_of(folder, words):
        for source, part, turns in _match(words, prepared, left):
            seen = sum(prepared.get(f"{part}attention_mask") or [1] * 10**6)  # padding left out
            ids, labels = (prepared[f"{part}{name}"][:seen] for name in ("input_ids", "labels"))
            place = (prepared["row"], part, prepared["start"])
            yield Sequence(source, *place, ids, labels, turns, words.silent(ids))
            left.pop(source, None)


def _match(
    words: Words, prepared: dict[str, Any], left: dict[int, Row]
) -> list[tuple[int, str, list[Turn]]]:
    """The row that explains most of a prepared row, and where its contents are, per part."""
    best: tuple[int, list[tuple[int, str, list[Turn]]]] = (0, [])
    there = {
        part: as_bytes(words, prepared[f"{part}input_ids"])
        for part in PARTS
        if f"{part}input_ids" in prepared
    }
    for index, row in left.items():
        parts = []
        for part, where in there.items():
            turns = locate(words, where, contents(row, part.rstrip("_")))
            if turns is None:
                break
            parts.append((index, part, turns))
        else:
            explained = sum(len(turn.tokens) for _, _, turns in parts for turn in turns)
            best = max(best, (explained, parts), key=lambda found: found[0])
    return best[1]


@dataclass
class Summary:
    """What a prepared data set trains, counted."""

    answers: int = 0
    silent: int = 0
    """Answers of which nothing is trained."""
    forgotten: int = 0
    """Silent answers in sequences that train something."""
    partly: int = 0
    stopless: int = 0
    """Trained answers whose stop is missing or not trained."""
    foreign: int = 0
    """Tokens of user and system texts that are trained."""
    template: int = 0
    """Tokens of headers that are trained."""


def summarize(found: Iterable[Sequence]) -> Summary:
    """Count what prepared sequences train."""
    result = Summary()
    for sequence in found:
        # not where the label is another token: some templates end turns so
        result.template += sum(sequence.labels[p] == sequence.ids[p] for p in sequence.template)
        something = sequence.trained(list(range(len(sequence.ids)))) > 0
        for turn in sequence.turns:
            trained = sequence.trained(turn.tokens)
            stopped = turn.stop >= 0 and sequence.labels[turn.stop] != IGNORED
            if turn.role != "assistant":
                result.foreign += trained + stopped
                continue
            result.answers += 1
            result.silent += trained == 0
            result.forgotten += trained == 0 and something
            result.partly += 0 < trained < len(turn.tokens)
            result.stopless += trained > 0 and not stopped
    return result
