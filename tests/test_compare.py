"""The comparison of two backends, on prepared data made by hand, and what makes them agree."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from orchestrator.backends.llamafactory import common
from orchestrator.labels.alignment import align
from orchestrator.labels.compare import Comparison, Side, compare
from orchestrator.labels.compare_view import advice, document, show
from orchestrator.labels.prepared import IGNORED, Prepared
from orchestrator.probe.ftprobe import axolotl_pairs
from orchestrator.probe.ftprobe import llamafactory_common as probe
from orchestrator.prompts import alpaca_prompt
from tests.helpers import ft, loaded

STOP, BEGIN = "</s>", "<s>"
PIECES = ("Ċ", "ĊĊ")


def build_tokenizer() -> Tokenizer:
    """One token per byte, but two newlines may be one token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate((STOP, BEGIN, *letters, PIECES[1]))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[(PIECES[0], PIECES[0])]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in (STOP, BEGIN)])
    return made


TOKENIZER = build_tokenizer()


def row(text: str) -> dict[str, list[int]]:
    """A row written as text: what is in ⟦ ⟧ is trained, ‖ keeps tokens apart."""
    ids: list[int] = []
    labels: list[int] = []
    trained, part = False, ""
    for character in (*text, "‖"):
        if character not in "⟦⟧‖":
            part += character
            continue
        found = TOKENIZER.encode(part).ids
        ids += found
        labels += found if trained else [IGNORED] * len(found)
        trained, part = (character == "⟦" or (trained and character == "‖")), ""
    return {"input_ids": ids, "labels": labels}


def side(folder: Path, name: str, rows: list[dict[str, Any]], limit: int = 0) -> Side:
    """A backend's prepared rows on disk."""
    place = folder / name
    place.mkdir()
    TOKENIZER.save(str(place / "tokenizer.json"))
    kind = pa.list_(pa.int32() if name == "axolotl" else pa.int64())
    table = pa.table({key: pa.array([r[key] for r in rows], kind) for key in rows[0]})
    with (
        pa.OSFile(str(place / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return Side(name, [Prepared(place, place)], limit)


def compared(folder: Path, left: list[str], right: list[str], limit: int = 0) -> Comparison:
    """Rows as text of axolotl and of llamafactory."""
    return compare(
        side(folder, "axolotl", [row(text) for text in left], limit),
        side(folder, "llamafactory", [row(text) for text in right], limit),
        shown=5,
    )


def test_equal_rows_are_equal_in_any_order_and_integer_type(tmp_path: Path) -> None:
    rows = ["ask⟦one</s>⟧", "ask⟦two</s>⟧", "ask⟦two</s>⟧"]
    found = compared(tmp_path, rows, rows[::-1])
    assert (found.identical, found.equal, found.differences) == (3, True, [])


@pytest.mark.parametrize(
    ("left", "right", "kind", "message"),
    [
        ("ask⟦yes</s>⟧\n", "ask⟦yes</s>\n⟧", "masking",
         "only llamafactory trains the whitespace '\\n' behind '</s>'"),
        ("ask⟦yes</s>⟧", "ask⟦yes⟧</s>", "masking",
         "only axolotl trains the special token '</s>'"),
        ("ask⟦yes</s>⟧", "⟦ask‖yes</s>⟧", "masking", "only llamafactory trains 'ask'"),
        ("<s>ask⟦yes</s>⟧", "ask⟦yes</s>⟧", "special",
         "axolotl has '<s>' where llamafactory has nothing"),
        ("ask⟦yes</s>⟧", "ask⟦yes⟧", "special", "where llamafactory has nothing"),
        ("ask⟦ yes</s>⟧", "ask⟦yes</s>⟧", "whitespace",
         "axolotl has ' ' where llamafactory has nothing"),
        ("ask\n\n⟦yes</s>⟧", "ask\n‖\n⟦yes</s>⟧", "cut",
         "'\\n\\n' is cut into other tokens: 1 by axolotl, 2 by llamafactory"),
        ("Q: ask⟦yes</s>⟧", "ask⟦yes</s>⟧", "text",
         "axolotl has 'Q: ' where llamafactory has nothing"),
        ("ask⟦yes it is so</s>⟧", "ask⟦yes it⟧", "truncation", "axolotl 16, llamafactory 9"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(
    tmp_path: Path, left: str, right: str, kind: str, message: str
) -> None:
    found = compared(tmp_path, [left], [right], limit=9 if kind == "truncation" else 0)
    assert found.kinds == {kind: 1}
    assert message in found.differences[0].message
    assert (found.other_labels, found.other_ids) == ((1, 0) if kind == "masking" else (0, 1))
    assert not found.equal


def test_every_kind_is_shown_before_a_second_of_one(tmp_path: Path) -> None:
    same = [f"question number {n} goes here⟦answer {n}</s>⟧" for n in range(8)]
    other = [text.replace("</s>⟧", "⟧</s>") for text in same[:7]] + [f"<s>{same[7]}"]
    found = compared(tmp_path, same, other)
    assert [d.kind for d in found.differences][:2] == ["masking", "special"]
    assert len(found.differences) == 5


def test_rows_of_packs_are_compared_one_by_one(tmp_path: Path) -> None:
    one, two = row("ask⟦yes</s>⟧"), row("what⟦no</s>⟧")
    padding = 3
    pack = {key: one[key] + two[key] + [0 if key == "input_ids" else IGNORED] * padding
            for key in one}  # fmt: skip
    pack["position_ids"] = [
        *range(len(one["labels"])), *range(len(two["labels"])), *[0] * padding
    ]  # fmt: skip
    found = compare(
        side(tmp_path, "axolotl", [two, one]), side(tmp_path, "llamafactory", [pack]), 1
    )
    assert (found.identical, found.equal) == (2, True)


def test_rows_that_one_side_has_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, ["a first⟦yes</s>⟧", "b second⟦no</s>⟧"], ["a first⟦yes</s>⟧"])
    assert ([s.row for s in found.only[0]], found.only[1], found.equal) == ([1], [], False)


def test_alignment_needs_neither_order_nor_the_same_template() -> None:
    tail = "write a response that completes the request"
    topics = [f"animal{n} lives in place{n} and eats food{n}" for n in range(30)]
    left = [f"Below is a task, {tail} {topic}" for topic in topics]
    right = [f"USER {topic} ASSISTANT {tail}" for topic in reversed(topics)]
    pairs, *alone = align(left, right, left.__getitem__, right.__getitem__)
    assert pairs == [(n, 29 - n) for n in range(30)]
    assert alone == [[], []]


def test_alignment_takes_equal_rows_once_each() -> None:
    left, right = ["same", "same", "x other words"], ["same", "quite different text"]
    pairs, *alone = align(left, right, left.__getitem__, right.__getitem__)
    assert (pairs, alone) == ([(0, 0)], [[1, 2], [1]])


def test_alignment_finds_a_row_that_was_cut() -> None:
    long = " ".join(f"word{n}" for n in range(50))
    left = [f"Q: {long}", "Q: something else of its own"]
    right = ["Q: something else of its own, longer", f"Q: {' '.join(long.split()[:20])}"]
    pairs, *_ = align(left, right, left.__getitem__, right.__getitem__)
    assert pairs == [(0, 1), (1, 0)]


def test_document_and_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = loaded(**{"data.tokenization": "backend"}).recipe
    found = compared(tmp_path, ["ask me⟦yes</s>⟧\n", "b⟦c</s>⟧"], ["ask me⟦yes</s>\n⟧"])
    made = document(found, recipe)
    assert (made["version"], made["equal"]) == (1, False)
    assert made["summary"] == {
        "rows": {"axolotl": 2, "llamafactory": 1}, "identical": 0, "other_labels": 1,
        "other_ids": 0, "only": {"axolotl": 1, "llamafactory": 0}, "kinds": {"masking": 1},
    }  # fmt: skip
    entry = made["differences"][0]
    assert entry["fix"] == "--set data.tokenization=common"
    differing = [t for t in entry["sides"]["llamafactory"]["tokens"] if t["differs"]]
    assert [(t["text"], t["trained"]) for t in differing] == [("\n", True)]
    assert made["only"] == {"axolotl": [1], "llamafactory": []}
    show(found, recipe)
    shown = capsys.readouterr().out
    assert "masking: only llamafactory trains the whitespace" in shown
    assert "only axolotl has these" in shown


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"data.tokenization": "backend"}, "--set data.tokenization=common"),
        ({"data.train_on": "all"}, "--set data.train_on=assistant"),
        ({"data.chat_template": "qwen3"}, "--set data.chat_template=tokenizer"),
        ({"data.chat_template": "tokenizer"}, "none is known"),
    ],
)
def test_advice(tmp_path: Path, changes: dict[str, Any], fix: str) -> None:
    found = compared(tmp_path, ["ask⟦yes</s>⟧"], ["ask⟦yes⟧</s>"])
    assert fix in advice(found, found.differences[0], loaded(**changes).recipe)


@pytest.mark.parametrize("backends", ["axolotl", "axolotl,axolotl", "axolotl,other"])
def test_two_backends_are_needed(backends: str) -> None:
    done = ft("inspect-tokens", "qwen-lora-chat", "--smoke", "--compare", backends)
    assert done.code == 2
    assert "--compare axolotl,llamafactory" in done.err


def test_what_the_probe_is_told() -> None:
    def told(**changes: Any) -> Any:
        return common.options(loaded(backend="llamafactory", **changes).recipe)

    assert told()["prompt"]["text"].startswith("Below is an instruction that describes a task, pai")
    chat = {"data.sources": [{"path": "user/data", "format": "messages"}]}
    assert told(**chat, **{"data.chat_template": "llama3"}) == {
        "own": False, "trim": ["system", "user", "assistant"], "default_system": None,
        "last_only": False, "cut": None,
    }  # fmt: skip
    assert told(**chat, **{"data.chat_template": "tokenizer"})["own"] is True
    assert told(**{"data.overlong": "truncate", "data.sequence_length": 64})["cut"] == 64
    assert told(**{"data.tokenization": "backend"}) is None
    assert told(**{"training.stage": "pretrain"}) is None
    history = {"path": "user/data", "format": "alpaca", "columns": {"history": "before"}}
    assert told(**{"data.sources": [history]}) is None


def test_the_alpaca_prompt_is_one_text() -> None:
    recipe = loaded().recipe
    usual = alpaca_prompt(recipe, has_system=False)
    assert usual.system == ""
    assert "paired with an input" in usual.text
    assert "paired with an input" not in usual.text_without_input
    own = alpaca_prompt(loaded(**{"data.default_system": "Be kind."}).recipe, has_system=False)
    assert (own.system, own.text.startswith("### Instruction")) == ("Be kind.", True)


def test_rendering_for_use_without_ft_says_what_differs(tmp_path: Path) -> None:
    done = ft("recipe", "render", "mistral-qlora", "--backend", "llamafactory", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "FT408" in done.err
    plain = ft("recipe", "render", "mistral-qlora", "--out", tmp_path)
    assert "FT408" not in plain.err
    pairs = ft("recipe", "render", "mistral-dpo", "--backend", "axolotl", "--out", tmp_path)
    assert "axolotl writes BOS twice" in pairs.err


def test_pairs_are_tokenized_as_they_are_judged() -> None:
    begin_id = TOKENIZER.encode(BEGIN).ids

    def encode(text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": begin_id * add_special_tokens + TOKENIZER.encode(text).ids}

    tokens = axolotl_pairs.PairTokens(None)

    def ids(text: str) -> list[int]:
        found: list[int] = tokens(encode, text)["input_ids"]
        return found

    for prompt in ("<s>ask\n", "<s>ask\n\nmore\n"):  # the second starts as the first
        begin = TOKENIZER.encode(prompt).ids
        assert ids(prompt) == begin
        assert begin[:1] == begin_id
        for answer in ("\nyes</s>", "no</s>"):
            assert ids(prompt + answer) == begin + TOKENIZER.encode(answer).ids


def test_runs_of_masked_and_trained_ids() -> None:
    flags = [False, True, True, False, True, False]
    assert probe.pairs([1, 2, 3, 4, 5, 6], flags) == [([1], [2, 3]), ([4], [5]), ([6], [])]
    assert probe.pairs([1, 2], [True, False]) == [([], [1]), ([2], [])]
    assert probe.one_pair([1, 2, 3, 4, 5, 6], flags) == [([1], [2, 3, 4, 5])]
    whole = [([1], [2, 3]), ([4], [5])]
    assert probe.cut(whole, None) == probe.cut(whole, 5) == whole
    assert probe.cut(whole, 4) == [([1], [2, 3]), ([4], [])]
    assert probe.cut(whole, 2) == [([1], [2])]
    assert probe.one_pair([1, 2], [False, False]) == [([1, 2], [])]


@pytest.mark.parametrize(
    ("text", "other", "span"),
    [("a-yes-b", "a-NO-b", (2, 5)), ("aXXa", "aXa", (2, 3)), ("same", "same", (4, 4))],
)
def test_where_two_texts_differ(text: str, other: str, span: tuple[int, int]) -> None:
    assert probe.differing(text, other) == span
