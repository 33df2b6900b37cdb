"""Labels flipped at random places of sound prepared data, one at a time."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from tests.smoke.planted.making import Made
from tests.smoke.planted.truth import IGNORED, Sequence, read_table, sequences, write_table

KINDS = {
    "user": "FT503",  # a token of a question is trained
    "answer": "FT504",  # a token of an answer is masked
    "other": "FT504",  # another token is taught in an answer
    "stop": "FT505",  # a stop is masked
    "header": "FT531",  # a token of a header is trained
}
"""Kinds of flips, and the code that names each."""


@dataclass(frozen=True)
class Flip:
    """One label of one sequence, and what it becomes."""

    kind: str
    row: int
    column: str
    position: int
    label: int


def places(sequence: Sequence, kind: str) -> list[int]:
    """Where a kind of flip changes what is trained."""
    answers = [turn for turn in sequence.turns if turn.role == "assistant"]
    others = [turn for turn in sequence.turns if turn.role != "assistant"]
    match kind:
        case "user":
            found = [p for turn in others for p in turn.tokens]
        case "answer" | "other":
            found = [p for turn in answers for p in turn.tokens if p not in turn.opening]
        case "stop":
            return [turn.stop for turn in answers]
        case _:
            found = sequence.template
    return [p for p in found if p not in sequence.silent]


def flips(made: Made, number: int, seed: int = 0) -> Iterator[Flip]:
    """Some flips of each kind at random places."""
    random = Random(seed)
    found = list(sequences(made.dataset, made.tokenizer, made.case.rows))
    for kind in KINDS:
        for _ in range(number):
            sequence = random.choice(found)
            position = random.choice(places(sequence, kind))
            token = sequence.ids[position]
            masked = kind in ("answer", "stop")
            label = IGNORED if masked else token + 1 if kind == "other" else token
            column = f"{sequence.part}labels"
            yield Flip(kind, sequence.row, column, sequence.start + position, label)


def flipped(made: Made, flip: Flip, folder: Path) -> Path:
    """A copy of the prepared data with one label changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made.dataset, folder)
    table = read_table(folder)
    labels: list[list[int]] = table.column(flip.column).to_pylist()
    assert labels[flip.row][flip.position] != flip.label
    labels[flip.row][flip.position] = flip.label
    field: Any = table.schema.field(flip.column)
    column = pa.array(labels, type=field.type)
    place = table.column_names.index(flip.column)
    write_table(folder, table.set_column(place, field, column))
    return folder
