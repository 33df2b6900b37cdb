"""Local data is checked line by line, and streamed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data_check import check_data
from orchestrator.findings import Finding
from tests.helpers import loaded


def check(tmp_path: Path, text: str | bytes, name: str = "d.jsonl", **source: Any) -> list[Finding]:
    raw = text.encode() if isinstance(text, str) else text
    (tmp_path / name).write_bytes(raw)
    entry = {"path": name, "format": "alpaca", **source}
    return check_data(loaded(**{"data.sources": [entry]}).recipe, tmp_path)


GOOD = {"instruction": "a", "input": "", "output": "b"}


def rows(*items: Any) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def test_good_rows(tmp_path: Path) -> None:
    assert check(tmp_path, rows(GOOD, GOOD)) == []


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "FT302", 0),
        ("\n\n", "FT302", 0),
        (rows(GOOD) + "{broken\n", "FT303", 2),
        (rows(GOOD, [1]), "FT303", 2),
        (b'{"instruction": "\xff"}\n', "FT303", 1),
        (rows(GOOD, {"instruction": "a"}), "FT304", 2),
        (rows({**GOOD, "output": 5}), "FT305", 1),
        (rows({**GOOD, "output": None}), "FT305", 1),
        (rows(GOOD, GOOD, {**GOOD, "output": " "}), "FT306", 3),
    ],
)
def test_bad_rows(tmp_path: Path, text: str | bytes, code: str, line: int) -> None:
    found = check(tmp_path, text)
    assert [(f.code, f.place.line) for f in found if f.place] == [(code, line)]


def test_one_finding_per_kind_with_a_count(tmp_path: Path) -> None:
    found = check(tmp_path, rows(*[{**GOOD, "output": ""}] * 9))
    assert len(found) == 1
    assert "9 rows; also lines 2, 3, ..." in found[0].message


def test_missing_file_and_mapped_columns(tmp_path: Path) -> None:
    entry = {"path": "none.jsonl", "format": "alpaca"}
    found = check_data(loaded(**{"data.sources": [entry]}).recipe, tmp_path)
    assert [f.code for f in found] == ["FT301"]
    text = rows({"q": "a", "a": "b"})
    assert check(tmp_path, text, columns={"instruction": "q", "output": "a"}) == []
    assert "columns: {instruction: ...}" in check(tmp_path, text)[0].fix


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "FT306"),
        ({"messages": "text"}, "FT305"),
        ({"messages": [{"from": "user", "value": "a"}]}, "FT304"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "FT306"),
        ({"conversations": []}, "FT304"),
        ({"messages": [{"role": "assistant", "content": 4}]}, "FT305"),
    ],
)
def test_bad_messages(tmp_path: Path, row: Any, code: str) -> None:
    assert code in [f.code for f in check(tmp_path, rows(row), format="messages")]


def test_sharegpt_and_renamed_roles(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert check(tmp_path, rows(row), format="sharegpt") == []
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "model", "content": "b"}]}
    assert check(tmp_path, rows(row), format="messages", roles={"assistant": "model"}) == []


def test_preference_and_kto(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "b"}
    row = {"messages": [{"role": "user", "content": "a"}], "chosen": said,
           "rejected": {**said, "content": "c"}}  # fmt: skip
    assert [
        f.code for f in check(tmp_path, rows({**row, "rejected": said}), format="preference")
    ] == ["FT310"]
    assert check(tmp_path, rows(row), format="preference") == []
    assert check(tmp_path, rows({**row, "chosen": None}), format="preference")[0].code == "FT305"
    judged: dict[str, Any] = {"prompt": "a", "completion": "b", "label": True}
    assert check(tmp_path, rows(judged), format="kto") == []
    assert check(tmp_path, rows({**judged, "label": 1}), format="kto")[0].code == "FT305"


def test_json_parquet_and_csv(tmp_path: Path) -> None:
    assert check(tmp_path, json.dumps([GOOD, GOOD]), name="d.json") == []
    assert check(tmp_path, "instruction,output\na,b\n", name="d.csv") == []
    pq.write_table(pa.Table.from_pylist([GOOD, {**GOOD, "output": ""}]), tmp_path / "d.parquet")
    entry = {"path": "d.parquet", "format": "alpaca"}
    found = check_data(loaded(**{"data.sources": [entry]}).recipe, tmp_path)
    assert [f.code for f in found] == ["FT306"]
    assert check(tmp_path, b"not parquet", name="x.parquet")[0].code == "FT303"


def test_samples_limit_what_is_read(tmp_path: Path) -> None:
    assert check(tmp_path, rows(GOOD) + "{broken\n", samples=1) == []
