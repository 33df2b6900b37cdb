"""Prepared data made by hand: a ChatML tokenizer of single bytes, rows with the labels they should
have, and whatever is done to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from orchestrator.labels.facts import Subject
from orchestrator.recipe.models import Recipe

START, END, PAD, BOS = "<|im_start|>", "<|im_end|>", "<|pad|>", "<|bos|>"
SPECIAL = (END, START, PAD, BOS)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
Prepared = dict[str, list[int]]
Change = Callable[[list[Prepared]], None]

ROWS: list[list[tuple[str, str]]] = [
    [("user", "What is two plus three?"), ("assistant", "Five.")],
    [("system", "Be brief."), ("user", "Say hello\nto Ann."), ("assistant", "Hello, Ann!")],
    [
        ("user", "One"),
        ("assistant", "1\n\n- a list\n- of: things"),
        ("user", "Two > one?"),
        ("assistant", "Yes: 2 > 1."),
    ],
    [("user", "Gr\u00fc\u00dfe?"), ("assistant", "Sch\u00f6ne Gr\u00fc\u00dfe \U0001f44b")],
    [("user", "One"), ("assistant", "The same question, another answer.")],
]


def tokenizer(folder: Path, template: str = TEMPLATE) -> Tokenizer:
    """One token per byte, and the control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *letters))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": END, "pad_token": PAD, "bos_token": BOS, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return made


def prepare(made: Tokenizer, turns: list[tuple[str, str]]) -> Prepared:
    """A conversation with the labels that it should have."""
    ids: list[int] = []
    labels: list[int] = []
    for role, content in turns:
        header = made.encode(f"{START}{role}\n", add_special_tokens=False).ids
        text = made.encode(f"{content}{END}", add_special_tokens=False).ids
        line = made.encode("\n", add_special_tokens=False).ids
        learned = text if role == "assistant" else [-100] * len(text)
        ids += header + text + line
        labels += [-100] * len(header) + learned + [-100] * len(line)
    return {"input_ids": ids, "labels": labels}


def save(folder: Path, rows: list[dict[str, Any]], shards: int = 1) -> Path:
    """A data set as `datasets` saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    if rows:
        table = pa.Table.from_pylist(rows)
        per = -(-len(rows) // shards)
        for shard in range(shards):
            part = table.slice(shard * per, per)
            names.append({"filename": f"data-{shard}.arrow"})
            file = str(folder / f"data-{shard}.arrow")
            with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_table(part)
    (folder / "state.json").write_text(json.dumps({"_data_files": names}))
    return folder


def world(
    folder: Path,
    change: Change | None = None,
    *,
    rows: list[list[tuple[str, str]]] | None = None,
    prepared: list[list[tuple[str, str]]] | None = None,
    validation: list[list[tuple[str, str]]] | None = None,
    template: str = TEMPLATE,
    **fields: Any,
) -> Subject:
    """A subject of `rows`; `prepared` where the backend saw others, `change` what it did to them.

    `fields` are sections of the recipe.
    """
    rows = ROWS if rows is None else rows
    made = tokenizer(folder / "tokenizer", template)
    source = folder / "data.jsonl"
    source.write_text(
        "".join(
            json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}) + "\n"
            for turns in rows
        )
    )
    done = [prepare(made, turns) for turns in (rows if prepared is None else prepared)]
    if change:
        change(done)
    dataset = save(folder / "train", done)
    held = None
    if validation is not None:
        held = save(folder / "validation", [prepare(made, turns) for turns in validation])
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"vocab_size": 300, "eos_token_id": 0}))
    data = {"sources": [{"path": str(source), "format": "messages"}], "sequence_length": 512}
    recipe = Recipe.model_validate(
        {
            "name": "world",
            "model": {"base": str(base)},
            "training": {"learning_rate": 1e-4, "epochs": 1},
            **fields,
            "data": {**data, **fields.get("data", {})},
        }
    )
    return Subject(recipe, dataset, folder / "tokenizer", held, (str(source),), (), str(base))
