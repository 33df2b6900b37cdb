"""That a planted mistake truly is in the prepared data, and that sound data has none.

A second, slower and simpler look than ft's own verdict, written without it: what it sees is
compared with the table, so that the table cannot claim what the backend did not do.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.smoke.planted.making import Made
from tests.smoke.planted.rows import Row, contents, messages_of
from tests.smoke.planted.truth import (
    IGNORED,
    Sequence,
    Summary,
    Words,
    rows_of,
    sequences,
    summarize,
)

MOST = 0.95
"""From this share on nearly everything is trained."""
DUMMY = re.compile(r"(?:^|(?<=[>\n])) +")
"""Where a metaspace tokenizer may put a space of its own: where pieces begin."""
CONTROL = re.compile(r"<\|[a-z_]+\|>|<[a-z_]+_of_turn>")


class Look:
    """The prepared data of a case as plain lists."""

    def __init__(self, made: Made) -> None:
        self.made, self.case = made, made.case
        self.words = Words(made.tokenizer)
        self.rows = list(rows_of(made.dataset, self.words))
        found = list(sequences(made.dataset, made.tokenizer, self.case.rows))
        self.sequences: list[Sequence] = found
        self.summary: Summary = summarize(found)
        self.config = _json(made.base / "config.json")
        self.generation = _json(made.base / "generation_config.json")

    @property
    def asked_for_all(self) -> bool:
        """Whether the recipe wants everything trained."""
        return self.made.recipe.data.train_on == "all" or self.case.format == "text"

    @property
    def expected_rows(self) -> int:
        """How many rows the recipe leaves to train on."""
        data, rows = self.made.recipe.data, self.case.rows
        if data.deduplicate:
            rows = [row for index, row in enumerate(rows) if row not in rows[:index]]
        held = 0 if self.case.validation else self.made.answer["validation_rows"]
        return min(len(rows), data.samples or len(rows)) - int(held)

    def parts(self, name: str) -> Iterator[list[int]]:
        """All ids or labels."""
        for row in self.rows:
            yield from (value for key, value in row.items() if key.endswith(name) and value)

    def text(self, ids: list[int]) -> bytes:
        """The text of ids."""
        return b"".join(map(self.words.bytes_of, ids))


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def observed(made: Made) -> set[str]:
    """The codes of everything that is wrong with a case."""
    look = Look(made)
    return {*_labels(look), *_tokens(look), *_rows(look), *_texts(look)}


def _labels(look: Look) -> Iterator[str]:
    """What is trained, and what is not."""
    found, total, trained = look.summary, 0, []
    for labels in look.parts("labels"):
        total += len(labels)
        trained.append(sum(label != IGNORED for label in labels))
    if not any(trained):
        yield "FT501"
        return
    if not all(trained):
        yield "FT502"
    if not look.asked_for_all:
        if found.foreign:
            yield "FT503"
        if found.template:
            yield "FT531"
        if sum(trained) > MOST * total:
            yield "FT530"
    last_only = look.made.recipe.data.train_on == "last_assistant"
    if (found.forgotten and not last_only) or found.partly > _thoughts(look):
        yield "FT504"
    if found.stopless > 0.01 * found.answers:
        yield "FT505"


def _thoughts(look: Look) -> int:
    """Answers that axolotl trains but for the opening tag and line of their thought."""
    if look.case.backend != "axolotl" or look.case.base.family != "qwen3":
        return 0
    return sum("<think>" in json.dumps(row) for row in look.case.rows)


def _tokens(look: Look) -> Iterator[str]:
    """Stops, BOS, padding, ids."""
    stops = look.generation["eos_token_id"]
    trained = {
        sequence.ids[turn.stop]
        for sequence in look.sequences
        for turn in sequence.turns
        if turn.stop >= 0 and sequence.labels[turn.stop] != IGNORED
    }
    if not trained <= set(stops):
        yield "FT506"
    bos = look.made.answer["bos_id"]
    if bos is not None and any(ids[:2] == [bos, bos] for ids in look.parts("input_ids")):
        yield "FT507"
    if any(max(ids) >= look.config["vocab_size"] for ids in look.parts("input_ids")):
        yield "FT537"
    for row in look.rows:
        mask = row.get("attention_mask", [])
        labels = row.get("labels", [])
        if any(m == 0 and label != IGNORED for m, label in zip(mask, labels, strict=False)):
            yield "FT536"
            return


def _rows(look: Look) -> Iterator[str]:
    """Rows that are cut, missing, or there twice."""
    ids = list(look.parts("input_ids"))
    limit = look.made.recipe.data.sequence_length
    if any(len(one) == limit for one in ids):
        yield "FT508"
    if len(look.rows) < look.expected_rows:
        yield "FT509"
    if len(set(map(tuple, ids))) < len(ids):
        yield "FT534"
    if look.made.validation:
        held = [row["input_ids"] for row in rows_of(look.made.validation, look.words)]
        if set(map(tuple, held)) & set(map(tuple, ids)):
            yield "FT535"


def _texts(look: Look) -> Iterator[str]:
    """The template, and control tokens."""
    names = {look.words.added[token] for token in look.words.special}
    said = [
        message["content"]
        for row in look.case.rows
        for message in messages_of(row)
        if message["role"] != "assistant" or "text" in row
    ]
    if any(name in text for name in names for text in said):
        yield "FT533"
    chat = look.case.format not in ("alpaca", "text", "kto", "pieces")
    written = chat and (look.made.base / "chat_template.jinja").is_file()
    limit = look.made.recipe.data.sequence_length
    whole = [sequence for sequence in look.sequences if len(sequence.ids) < limit]
    if written and any(not _same(look, sequence) for sequence in whole):
        yield "FT532"
    if any(_split(look, s.ids, look.case.rows[s.source]) for s in look.sequences):
        yield "FT538"


def _split(look: Look, ids: list[int], row: Row) -> bool:
    """Whether a control token is there in pieces."""
    whole = sum(CONTROL.fullmatch(look.words.added.get(token, "")) is not None for token in ids)
    said = sum(len(CONTROL.findall(text)) for _, text in contents(row))
    return len(CONTROL.findall(look.text(ids).decode(errors="replace"))) > whole + said


def _same(look: Look, sequence: Sequence) -> bool:
    """Whether a sequence says what the base's own template writes."""
    row = look.case.rows[sequence.source]
    messages = messages_of(row)
    if "chosen" in row:
        answer = look.words.needle(row["chosen"]["content"])
        end = "chosen" if answer in look.text(sequence.ids) else "rejected"
        messages = [*messages, row[end]]
    own = render(look.made.base, messages)
    text = look.text(sequence.ids).decode(errors="replace")
    return _plain(look, own) == _plain(look, text)


def _plain(look: Look, text: str) -> str:
    """A text without what tokenizers add: spaces of metaspace pieces, composed accents."""
    text = unicodedata.normalize("NFC", text) if look.words.nfc else text
    return text.rstrip() if look.words.bytelevel else DUMMY.sub("", text).rstrip()


def render(base: Path, messages: list[dict[str, Any]]) -> str:
    """Messages in a base's own chat template."""
    settings = _json(base / "tokenizer_config.json")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((base / "chat_template.jinja").read_text("utf-8"))
    return template.render(
        messages=messages,
        add_generation_prompt=False,
        bos_token=settings.get("bos_token", ""),
        eos_token=settings.get("eos_token", ""),
    )
