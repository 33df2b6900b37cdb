"""Token ids as bytes, from `tokenizer.json` alone: millions of ids are one lookup in a table.

Three spellings cover the tokenizers of causal models: byte-level BPE writes a byte as a printable
character (the map of GPT-2), SentencePiece-like ones write a space as U+2581 and rare bytes as
`<0xE2>`, the rest write text. Added tokens are always plain text.
"""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.errors import LabelError

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
CONTROL = re.compile(
    r"<\|.+\|>|<\uff5c.+\uff5c>|<(start|end)_of_\w+>|</?s>|\[/?INST\]|\[gMASK\]|\[\|.+\|\]"
)
"""Added tokens that steer a conversation although they are not declared special."""


@dataclass(frozen=True)
class Vocabulary:
    """What each id stands for.

    `texts[i]` are the bytes of id `i` (empty where the id is not used), `lengths[i]` their number,
    `control[i]` whether the id is a control token rather than text.
    """

    texts: tuple[bytes, ...]
    lengths: Ints
    control: Bools
    control_texts: tuple[str, ...]
    normal_form: str

    @staticmethod
    def load(folder: Path) -> "Vocabulary":
        """The vocabulary of a saved tokenizer.

        Raises:
            LabelError: the folder has no readable `tokenizer.json`.
        """
        path = folder / "tokenizer.json"
        try:
            document = json.loads(path.read_bytes())
            return _build(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelError(
                f"{path} cannot be read: {error}",
                hint="the label report needs a fast tokenizer (tokenizer.json)",
            ) from error

    @cached_property
    def _table(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(b"".join(self.texts), dtype=np.uint8)

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def blank(self) -> Bools:
        """Whether an id is white space, or nothing."""
        return np.array([not text.strip() for text in self.texts])

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return len(self.texts)

    def join(self, ids: Ints) -> bytes:
        """The bytes of a sequence of ids; an id outside of the vocabulary is empty."""
        known = self.known(ids)
        sizes = self.lengths[known]
        ends = np.cumsum(sizes)
        if not len(ends):
            return b""
        places = np.arange(ends[-1])
        places += np.repeat(self._starts[known] - ends + sizes, sizes)
        return self._table[places].tobytes()

    def known(self, ids: Ints) -> Ints:
        """The ids, with the last (empty) entry of the table for those that are outside of it."""
        inside = (ids >= 0) & (ids < self.size)
        return ids if bool(inside.all()) else np.where(inside, ids, self.size - 1)

    def text(self, ids: Ints) -> str:
        """The text of a sequence of ids, as well as it can be read."""
        return self.join(np.asarray(ids)).decode("utf-8", "replace")

    def ids_of(self, text: str) -> list[int]:
        """The ids of one token that is spelled exactly so."""
        wanted = text.encode()
        return [i for i in np.flatnonzero(self.control).tolist() if self.texts[i] == wanted]


def _build(document: dict[str, Any]) -> Vocabulary:
    model = document["model"]
    vocabulary = model.get("vocab") or {}
    pairs = (
        vocabulary.items()
        if isinstance(vocabulary, dict)
        else ((entry[0], index) for index, entry in enumerate(vocabulary))
    )
    spell = _byte_level if _uses(document, "ByteLevel") else _spaced
    table = {index: spell(token) for token, index in pairs}
    control: dict[int, str] = {}
    for added in document.get("added_tokens") or []:
        index, content = added["id"], added["content"]
        table[index] = content.encode()
        if added.get("special") or CONTROL.fullmatch(content):
            control[index] = content
    size = max(table, default=-1) + 2  # the last entry is what unknown ids point to
    texts = tuple(table.get(index, b"") for index in range(size))
    marks = np.zeros(size, dtype=np.bool_)
    marks[list(control)] = True
    return Vocabulary(
        texts,
        np.fromiter((len(text) for text in texts), dtype=np.int64, count=size),
        marks,
        tuple(control.values()),
        next((form for form in ("NFKC", "NFC", "NFKD", "NFD") if _uses(document, form)), ""),
    )


def _uses(document: dict[str, Any], kind: str) -> bool:
    """Whether a part of the tokenizer is of a kind, however deep in a sequence of parts."""
    parts = [document.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if part.get("type") == kind:
                return True
            for value in part.values():
                parts += value if isinstance(value, list) else []
    return False


def _spaced(token: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _byte_level(token: str) -> bytes:
    table = _printable_bytes()
    try:
        return bytes([table[character] for character in token])
    except KeyError:
        return token.encode()


@cache
def _printable_bytes() -> dict[str, int]:
    """GPT-2's map of bytes to printable characters, read backwards.

    Source: `bytes_to_unicode` in the encoder that was published with GPT-2 (2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}
