"""Reading the backend's own prepared data: arrow files and the tokenizer, no torch.

Both backends save a Hugging Face data set: a folder with `state.json`, which names arrow files in
stream format. Rows have `input_ids` and `labels`; preference data of LLaMA-Factory has
`chosen_*`/`rejected_*` pairs; preference data of axolotl is still text (TRL tokenizes it later),
which is tokenized here with the backend's tokenizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.errors import LabelError
from orchestrator.files import read_json

IGNORED = -100
"""Label of a token that the loss leaves out (PyTorch's cross entropy `ignore_index`)."""

PAIRS = (
    ("input_ids", "labels"),
    ("chosen_input_ids", "chosen_labels"),
    ("rejected_input_ids", "rejected_labels"),
)
TEXT_FIELDS = ("chosen", "rejected", "completion")


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: token ids and labels, both of the same length. `part` is empty, `chosen`,
    `rejected` or `completion`."""

    index: int
    part: str
    ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """How many tokens the loss is computed on."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class Columns:
    """Flat ids and labels of many sequences; `offsets` has one entry more than sequences."""

    part: str
    ids: "np.ndarray[Any, np.dtype[np.int64]]"
    labels: "np.ndarray[Any, np.dtype[np.int64]]"
    offsets: "np.ndarray[Any, np.dtype[np.int64]]"

    @property
    def lengths(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Tokens per sequence."""
        return np.diff(self.offsets)

    @property
    def trained(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Trained tokens per sequence."""
        sums = np.concatenate(([0], np.cumsum(self.labels != IGNORED)))
        counts: np.ndarray[Any, np.dtype[np.int64]] = (
            sums[self.offsets[1:]] - sums[self.offsets[:-1]]
        )
        return counts


class Prepared:
    """A prepared data set."""

    def __init__(self, dataset: Path, tokenizer: Path) -> None:
        self.dataset = dataset
        self.tokenizer_folder = tokenizer
        self._tokenizer: Any = None
        self._table: pa.Table | None = None

    @property
    def tokenizer(self) -> Any:
        """The backend's tokenizer (a `tokenizers.Tokenizer`)."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.tokenizer_folder / "tokenizer.json"))
        return self._tokenizer

    @property
    def table(self) -> pa.Table:
        """All rows, memory-mapped.

        Raises:
            LabelError: the folder holds no readable data set.
        """
        if self._table is None:
            state = read_json(self.dataset / "state.json")
            if not isinstance(state, dict):
                raise LabelError(
                    f"{self.dataset} holds no prepared data", hint="run `ft preprocess` again"
                )
            tables = []
            for entry in state.get("_data_files", []):
                try:
                    source = pa.memory_map(str(self.dataset / entry["filename"]))
                    tables.append(pa.ipc.open_stream(source).read_all())
                except (pa.ArrowException, OSError) as error:
                    raise LabelError(
                        f"{self.dataset / entry['filename']} cannot be read: {error}",
                        hint="remove the folder; the next run prepares it again",
                    ) from error
            self._table = pa.concat_tables(tables) if tables else pa.table({})
        return self._table

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @property
    def is_text(self) -> bool:
        """Preference data that the backend has not tokenized yet."""
        names = self.table.column_names
        return not any(name in names for pair in PAIRS for name in pair)

    def columns(self) -> Iterator[Columns]:
        """Ids and labels of all sequences, one `Columns` per part."""
        if self.is_text:
            yield from self._text_columns()
            return
        names = self.table.column_names
        for ids_name, labels_name in PAIRS:
            if ids_name not in names:
                continue
            ids, offsets = _flat(self.table.column(ids_name))
            # pretraining data has no labels: every token is trained
            labels = _flat(self.table.column(labels_name))[0] if labels_name in names else ids
            yield Columns(ids_name.removesuffix("input_ids").rstrip("_"), ids, labels, offsets)

    def _text_columns(self) -> Iterator[Columns]:
        for part in TEXT_FIELDS:
            if part not in self.table.column_names:
                continue
            sequences = [self._tokenized(index, part) for index in range(self.rows)]
            lengths = [len(row.ids) for row in sequences]
            yield Columns(
                part,
                np.array([i for row in sequences for i in row.ids], dtype=np.int64),
                np.array([i for row in sequences for i in row.labels], dtype=np.int64),
                np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            )

    def _tokenized(self, index: int, part: str) -> Row:
        row = self.table.slice(index, 1).to_pylist()[0]
        prompt = self.tokenizer.encode(row["prompt"], add_special_tokens=False).ids
        answer = self.tokenizer.encode(row[part], add_special_tokens=False).ids
        return Row(index, part, prompt + answer, [IGNORED] * len(prompt) + answer)

    def row(self, index: int) -> list[Row]:
        """The sequences of one row (two for preference pairs)."""
        if self.is_text:
            return [
                self._tokenized(index, part)
                for part in TEXT_FIELDS
                if part in self.table.column_names
            ]
        values = self.table.slice(index, 1).to_pylist()[0]
        return [
            Row(
                index,
                ids.removesuffix("input_ids").rstrip("_"),
                values[ids],
                values.get(labels, values[ids]),
            )
            for ids, labels in PAIRS
            if ids in values
        ]


def _flat(
    column: pa.ChunkedArray,
) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", "np.ndarray[Any, np.dtype[np.int64]]"]:
    """A list column as flat values and offsets."""
    parts, lengths = [], []
    for chunk in column.chunks:
        parts.append(chunk.flatten().to_numpy(zero_copy_only=False))
        lengths.append(chunk.value_lengths().to_numpy(zero_copy_only=False))
    values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    counts = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
    return values, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
