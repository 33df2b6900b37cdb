"""Reading the backend's own prepared data: arrow files and the tokenizer, no torch.

Both backends save a Hugging Face data set: a folder with `state.json`, which names arrow files in
stream format. Rows have `input_ids` and `labels`; preference data of LLaMA-Factory has
`chosen_*`/`rejected_*` pairs; preference data of axolotl is still text (TRL tokenizes it later),
which is tokenized here with the backend's tokenizer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.errors import LabelError
from orchestrator.files import read_json
from orchestrator.labels.vocabulary import Ints, Vocabulary

IGNORED = -100
"""Label of a token that the loss leaves out (PyTorch's cross entropy `ignore_index`)."""

PAIRS = (
    ("input_ids", "labels"),
    ("chosen_input_ids", "chosen_labels"),
    ("rejected_input_ids", "rejected_labels"),
)
TEXT_FIELDS = ("chosen", "rejected", "completion")
POSITIONS = "position_ids"
BATCH = 1000
"""Rows that are looked at together."""


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
class Batch:
    """Some rows of one part, flat.

    `ids` and `labels` have one entry per token; sequence `i` is `offsets[i]:offsets[i + 1]` and
    belongs to row `rows[i]`, which starts at `bases[i]`. A packed row has several sequences; its
    padding belongs to the last.
    """

    part: str
    ids: Ints
    labels: Ints
    offsets: Ints
    rows: Ints
    bases: Ints

    @property
    def lengths(self) -> Ints:
        """Tokens per sequence."""
        return np.diff(self.offsets)


class Prepared:
    """A prepared data set."""

    def __init__(self, dataset: Path, tokenizer: Path) -> None:
        self.dataset = dataset
        self.tokenizer_folder = tokenizer
        self._table: pa.Table | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The backend's tokenizer (a `tokenizers.Tokenizer`)."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.tokenizer_folder / "tokenizer.json"))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each id stands for."""
        return Vocabulary.load(self.tokenizer_folder)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The arrow files.

        Raises:
            LabelError: the folder holds no data set.
        """
        state = read_json(self.dataset / "state.json")
        if not isinstance(state, dict):
            raise LabelError(
                f"{self.dataset} holds no prepared data", hint="run `ft preprocess` again"
            )
        return tuple(self.dataset / entry["filename"] for entry in state.get("_data_files", []))

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns."""
        for file in self.files:
            with self._reading(file), pa.OSFile(str(file)) as source:
                return pa.ipc.open_stream(source).schema
        return pa.schema([])

    @property
    def table(self) -> pa.Table:
        """All rows, memory-mapped.

        Raises:
            LabelError: the folder holds no readable data set.
        """
        if self._table is None:
            tables = []
            for file in self.files:
                with self._reading(file):
                    tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
            self._table = pa.concat_tables(tables) if tables else pa.table({})
        return self._table

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @property
    def is_text(self) -> bool:
        """Preference data that the backend has not tokenized yet."""
        names = self.schema.names
        return not any(name in names for pair in PAIRS for name in pair)

    @property
    def parts(self) -> tuple[str, ...]:
        """What a row consists of: `("",)`, or `chosen` and `rejected`."""
        names = self.schema.names
        if self.is_text:
            return tuple(field for field in TEXT_FIELDS if field in names)
        return tuple(_part(ids) for ids, _ in PAIRS if ids in names)

    def batches(self, *, packed: bool = False) -> Iterator[Batch]:
        """All sequences, some rows at a time, so that memory does not grow with the data.

        Raises:
            LabelError: a file cannot be read.
        """
        wanted = [name for pair in PAIRS for name in pair]
        wanted += [*TEXT_FIELDS, "prompt"] if self.is_text else []
        wanted += [POSITIONS] if packed else []
        fields = [i for i, name in enumerate(self.schema.names) if name in wanted]
        first = 0
        for file in self.files:
            with self._reading(file), pa.OSFile(str(file)) as source:
                options = pa.ipc.IpcReadOptions(included_fields=fields)
                for record in pa.ipc.open_stream(source, options=options):
                    for start in range(0, record.num_rows, BATCH):
                        piece = record.slice(start, BATCH)
                        yield from self._batch(piece, first + start)
                    first += record.num_rows

    def _batch(self, record: pa.RecordBatch, first: int) -> Iterator[Batch]:
        if self.is_text:
            for part in self.parts:
                yield self._tokenized(record, part, first)
            return
        names = record.schema.names
        for ids_name, labels_name in PAIRS:
            if ids_name not in names:
                continue
            ids, offsets = _flat(record.column(ids_name))
            # pretraining data has no labels: every token is trained
            labels = _flat(record.column(labels_name))[0] if labels_name in names else ids
            owner = np.arange(record.num_rows)
            bases = offsets[:-1]
            if POSITIONS in names and not _part(ids_name):
                positions = _flat(record.column(POSITIONS))[0]
                offsets, owner = _unpacked(positions, offsets)
            yield Batch(_part(ids_name), ids, labels, offsets, first + owner, bases[owner])

    def _tokenized(self, record: pa.RecordBatch, part: str, first: int) -> Batch:
        """Prompt and answer of rows that are text: the prompt is masked."""
        encode = self.tokenizer.encode_batch
        prompts = encode(record.column("prompt").to_pylist(), add_special_tokens=False)
        answers = encode(record.column(part).to_pylist(), add_special_tokens=False)
        ids: list[int] = []
        labels: list[int] = []
        offsets = [0]
        for prompt, answer in zip(prompts, answers, strict=True):
            ids += prompt.ids + answer.ids
            labels += [IGNORED] * len(prompt.ids) + answer.ids
            offsets.append(len(ids))
        bounds = np.array(offsets)
        rows = np.arange(first, first + record.num_rows)
        return Batch(part, np.array(ids), np.array(labels), bounds, rows, bounds[:-1])

    def row(self, index: int) -> list[Row]:
        """The sequences of one row (two for preference pairs)."""
        names = [name for name in self.schema.names if name != POSITIONS]
        record = self.table.select(names).slice(index, 1).combine_chunks().to_batches()[0]
        return [
            Row(index, batch.part, batch.ids.tolist(), batch.labels.tolist())
            for batch in self._batch(record, index)
        ]

    def some(self, indexes: Sequence[int]) -> Iterator[Row]:
        """Several rows, in the given order."""
        for index in indexes:
            yield from self.row(index)

    def _reading(self, file: Path) -> "_Reading":
        return _Reading(file)


class _Reading:
    """Turns what arrow raises into one clear error."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError)):
            raise LabelError(
                f"{self.file} cannot be read: {error}",
                hint="remove the folder; the next run prepares it again",
            ) from error


def _part(ids_name: str) -> str:
    return ids_name.removesuffix("input_ids").rstrip("_")


def _flat(column: pa.Array) -> tuple[Ints, Ints]:
    """A list column as flat values and offsets."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    counts = column.value_lengths().to_numpy(zero_copy_only=False)
    return values, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _unpacked(positions: Ints, offsets: Ints) -> tuple[Ints, Ints]:
    """The sequences of packed rows, and the row of each: one starts wherever position 0 is.

    LLaMA-Factory pads packed rows with position 0; such a run belongs to the sequence before it.
    """
    zero = positions == 0
    single = zero & ~np.concatenate(([False], zero[:-1]))
    single &= ~np.concatenate((zero[1:], [False]))
    single[offsets[:-1][np.diff(offsets) > 0]] = True
    starts = np.flatnonzero(single)
    owner = np.searchsorted(offsets, starts, side="right") - 1
    return np.concatenate((starts, offsets[-1:])), owner
