"""The label report over prepared data of both shapes, made here by hand."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from orchestrator.errors import LabelError
from orchestrator.labels.prepared import Prepared
from orchestrator.labels.report import pick_rows, report
from orchestrator.labels.terminal import row_text
from orchestrator.stages import judge_labels

EOS = 0


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    letters = {char: i + 1 for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab={"</s>": EOS, **letters}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("</s>", special=True)])
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


def prepared(
    tmp_path: Path, tokenizer: Path, rows: list[dict[str, Any]], shards: int = 1
) -> Prepared:
    folder = tmp_path / "data"
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    names = []
    per = -(-len(rows) // shards) if rows else 0
    for shard in range(shards if rows else 0):
        part = table.slice(shard * per, per)
        names.append({"filename": f"data-{shard}.arrow"})
        file = str(folder / f"data-{shard}.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part)
    (folder / "state.json").write_text(json.dumps({"_data_files": names}))
    return Prepared(folder, tokenizer)


def sequence(masked: int, trained: int, stop: bool = True) -> dict[str, Any]:
    ids = [5] * masked + [7] * trained + ([EOS] if stop else [])
    labels = [-100] * masked + ids[masked:]
    return {"input_ids": ids, "labels": labels}


def test_facts_over_all_rows(tmp_path: Path, tokenizer: Path) -> None:
    rows = [sequence(3, 2), sequence(1, 1), sequence(6, 4)]
    found = report(prepared(tmp_path, tokenizer, rows, shards=2))
    assert (found.rows, found.tokens, found.trained_tokens) == (3, 6 + 3 + 11, 3 + 2 + 5)
    assert (found.shortest, found.median, found.longest) == (3, 6, 11)
    assert found.stop_ids == (EOS,)
    assert found.stop_tokens == ("</s>",)
    assert found.ends_with_stop == 1.0
    assert found.findings() == []


def test_stop_token_before_a_trained_separator_counts(tmp_path: Path, tokenizer: Path) -> None:
    row = {"input_ids": [5, 7, EOS, 9, 9], "labels": [-100, 7, EOS, 9, 9]}
    found = report(prepared(tmp_path, tokenizer, [row]))
    assert (found.stop_ids, found.ends_with_stop) == ((EOS,), 1.0)


def test_stop_token_that_is_masked_does_not_count(tmp_path: Path, tokenizer: Path) -> None:
    row = {"input_ids": [5, 7, EOS], "labels": [-100, 7, -100]}
    found = report(prepared(tmp_path, tokenizer, [row, sequence(1, 1)]))
    assert found.ends_with_stop == 0.5


def test_multi_turn_rows_count_each_turn(tmp_path: Path, tokenizer: Path) -> None:
    row = {"input_ids": [5, 7, EOS, 5, 7, EOS], "labels": [-100, 7, EOS, -100, 7, -100]}
    assert report(prepared(tmp_path, tokenizer, [row])).ends_with_stop == 0.5


def test_rows_with_nothing_trained_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    rows = [sequence(3, 2), {"input_ids": [5, 5], "labels": [-100, -100]}]
    found = report(prepared(tmp_path, tokenizer, rows))
    assert (found.empty_rows, found.empty_count) == ((1,), 1)
    with pytest.raises(LabelError, match="1 of 2 rows have no trained token"):
        judge_labels(found)


@pytest.mark.parametrize("rows", [[], [{"input_ids": [5], "labels": [-100]}]])
def test_nothing_to_train_at_all(tmp_path: Path, tokenizer: Path, rows: list[Any]) -> None:
    with pytest.raises(LabelError, match="FT501"):
        judge_labels(report(prepared(tmp_path, tokenizer, rows)))


def test_preference_pairs_and_texts(tmp_path: Path, tokenizer: Path) -> None:
    pair = {f"{side}_{key}": value for side in ("chosen", "rejected")
            for key, value in sequence(2, 1).items()}  # fmt: skip
    found = report(prepared(tmp_path, tokenizer, [pair]))
    assert (found.rows, found.sequences) == (1, 2)
    (tmp_path / "text").mkdir()
    text = {"prompt": "ab", "chosen": "c</s>", "rejected": "de</s>"}
    other = report(prepared(tmp_path / "text", tokenizer, [text]))
    assert (other.sequences, other.tokens, other.trained_tokens) == (2, 9, 5)
    assert other.stop_tokens == ("</s>",)


def test_pretraining_rows_have_no_labels(tmp_path: Path, tokenizer: Path) -> None:
    found = report(prepared(tmp_path, tokenizer, [{"input_ids": [5, 6, EOS]}]))
    assert found.trained_share == 1.0


def test_picking_rows(tmp_path: Path, tokenizer: Path) -> None:
    data = prepared(tmp_path, tokenizer, [sequence(3, 2), sequence(1, 1), sequence(9, 1)])
    assert pick_rows("0,longest,shortest,1-2", data) == [0, 2, 1]
    assert pick_rows("least,most", data) == [2, 1]
    for bad in ("9", "first", "1-x"):
        with pytest.raises(ValueError, match="row"):
            pick_rows(bad, data)


def test_text_shows_every_token_with_ids(tmp_path: Path, tokenizer: Path) -> None:
    encoded = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode("a b\n").ids
    row = {"input_ids": [*encoded, EOS], "labels": [-100] * len(encoded) + [EOS]}
    data = prepared(tmp_path, tokenizer, [row])
    shown = row_text(data.row(0)[0], data, ids=True).plain
    assert f"a(-100, {encoded[0]})" in shown
    assert "\u00b7(-100," in shown
    assert f"</s>({EOS}, {EOS})" in shown
    plain = row_text(data.row(0)[0], data, ids=False).plain
    assert plain == "a b\u23ce\n</s>"


def test_broken_data_is_an_error_not_a_traceback(tmp_path: Path, tokenizer: Path) -> None:
    data = prepared(tmp_path, tokenizer, [sequence(1, 1)])
    (data.dataset / "data-0.arrow").write_bytes(b"junk")
    with pytest.raises(LabelError, match="cannot be read"):
        report(data)
    with pytest.raises(LabelError, match="no prepared data"):
        report(Prepared(tmp_path / "none", tokenizer))
