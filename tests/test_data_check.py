"""Local data is checked line by line, and streamed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data_check import check_data, read_data
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
        (rows(GOOD) + json.dumps(GOOD) + "x", "FT303", 2),
        (rows(GOOD) + "  " + json.dumps(GOOD) + " \r\n" + rows([1]), "FT303", 3),
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


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


def levels(tmp_path: Path, row: Any, backend: str, template: str = "chatml") -> dict[str, str]:
    (tmp_path / "d.jsonl").write_text(rows(row))
    entry = {"path": "d.jsonl", "format": "messages"}
    changes = {"data.sources": [entry], "data.chat_template": template, "backend": backend}
    found = check_data(loaded(**changes).recipe, tmp_path)
    return {finding.code: finding.level for finding in found}


ORDERS: list[tuple[tuple[str, ...], dict[str, str], dict[str, str]]] = [
    (("user", "assistant"), {}, {}),
    (("system", "user", "assistant", "user", "assistant"), {}, {}),
    (("user", "assistant", "user"), {}, {"FT307": "error"}),
    (("assistant", "user", "assistant"), {"FT307": "warning"}, {"FT307": "error"}),
    (("user", "user", "assistant"), {"FT307": "warning"}, {"FT307": "error"}),
    (("user", "system", "assistant"), {"FT307": "warning"}, {"FT307": "error"}),
    (("user", "assistant", "tool", "assistant"), {}, {}),
    (("user", "assistant", "tool", "tool", "assistant"), {}, {"FT307": "error"}),
    (("user", "wizard", "assistant"), {"FT308": "warning"}, {"FT308": "error"}),
]


@pytest.mark.parametrize(("roles", "axolotl", "llamafactory"), ORDERS)
def test_roles_alternate_as_the_backend_demands(
    tmp_path: Path, roles: tuple[str, ...], axolotl: dict[str, str], llamafactory: dict[str, str]
) -> None:
    assert levels(tmp_path, turns(*roles), "axolotl") == axolotl
    assert levels(tmp_path, turns(*roles), "llamafactory") == llamafactory


def test_templates_that_refuse_other_orders(tmp_path: Path) -> None:
    row = turns("user", "user", "assistant")
    assert levels(tmp_path, row, "axolotl", "gemma") == {"FT307": "error"}
    assert levels(tmp_path, row, "axolotl", "mistral") == {"FT307": "error"}


def test_the_same_order_again_is_still_counted(tmp_path: Path) -> None:
    found = check(tmp_path, rows(*[turns("user", "user", "assistant")] * 5), format="messages")
    assert "(5 rows; also lines 2, 3, ...)" in found[0].message


def test_tool_calls_and_content_in_parts_are_axolotl_s(tmp_path: Path) -> None:
    row = turns("user", "assistant", "tool", "assistant")
    row["messages"][1] = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    row["messages"][0]["content"] = [{"type": "text", "text": "x"}]
    assert levels(tmp_path, row, "axolotl") == {}
    assert levels(tmp_path, row, "llamafactory") == {"FT305": "error"}


def test_llamafactory_needs_the_input_column_in_each_row(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(rows({"instruction": "a", "output": "b"}))
    entry = {"path": "d.jsonl", "format": "alpaca"}
    for backend, codes in (("axolotl", []), ("llamafactory", ["FT304"])):
        recipe = loaded(backend=backend, **{"data.sources": [entry]}).recipe
        assert [f.code for f in check_data(recipe, tmp_path)] == codes


def test_copies_are_told_once_they_are_many(tmp_path: Path) -> None:
    many = [{"instruction": str(i), "output": "b"} for i in range(100)]
    assert check(tmp_path, rows(*many)) == []
    (finding,) = check(tmp_path, rows(*many, *many[:30]))
    assert (finding.code, finding.level) == ("FT309", "note")
    assert "30 of 130 rows" in finding.message


def test_preference_answers(tmp_path: Path) -> None:
    row = {**turns("user"), "chosen": {"role": "assistant", "content": "a"},
           "rejected": [{"role": "assistant", "content": "b"}]}  # fmt: skip
    assert check(tmp_path, rows(row), format="preference") == []
    (tmp_path / "d.jsonl").write_text(rows(row))
    changes = {"data.sources": [{"path": "d.jsonl", "format": "preference"}],
               "backend": "llamafactory"}  # fmt: skip
    (finding,) = check_data(loaded(**changes).recipe, tmp_path)
    assert finding.code == "FT305"
    assert "not a list" in finding.message


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None
) -> None:
    from orchestrator.data_check import reading

    monkeypatch.setattr(reading, "CHUNK", 7)
    many = [{"instruction": 'ü,]}\\"[', "output": str(i)} for i in range(30)]
    text = json.dumps(many, indent=indent, ensure_ascii=False)
    assert check(tmp_path, text, name="d.json") == []
    many[20]["output"] = ""
    (finding,) = check(tmp_path, json.dumps(many, indent=indent), name="d.json")
    assert finding.code == "FT306"
    assert finding.place
    assert (finding.place.line, "row 21" in finding.place.file) == (
        (82, False) if indent else (0, True)
    )


@pytest.mark.parametrize("text", ["[1]", '[{"a": 1} {"a": 2}]', "[{", "[", '[{"a" 1}]', "[]]"])
def test_broken_json_lists(tmp_path: Path, text: str) -> None:
    found = check(tmp_path, text, name="d.json")
    assert {finding.code for finding in found} <= {"FT302", "FT303", "FT304"}
    assert found


def test_saved_data_sets_and_arrow_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([GOOD, {**GOOD, "output": ""}])
    for name, make in (("a.arrow", pa.ipc.new_stream), ("b.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(folder / name), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text("{}")
    recipe = loaded(**{"data.sources": [{"path": "saved", "format": "alpaca"}]}).recipe
    (finding,) = check_data(recipe, tmp_path)
    assert finding.code == "FT306"
    assert "2 rows" in finding.message


def test_memory_stays_flat_and_progress_is_told(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "d.jsonl").open("w") as handle:
        for number in range(20_000):
            handle.write(json.dumps({"instruction": str(number), "output": "x" * 500}) + "\n")
    recipe = loaded(**{"data.sources": [{"path": "d.jsonl", "format": "alpaca"}]}).recipe
    told: list[tuple[str, int, int]] = []
    tracemalloc.start()
    report = read_data(recipe, tmp_path, lambda *args: told.append(args))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.rows == {"data.sources[0]": 20_000}
    assert peak < 4_000_000
    assert told
    assert all(done <= size for _, done, size in told)


def test_path_that_reads_as_a_hub_id(tmp_path: Path) -> None:
    recipe = loaded(**{"data.sources": [{"path": "mine/train", "format": "alpaca"}]}).recipe
    assert check_data(recipe, tmp_path) == []
    (tmp_path / "mine").mkdir()
    (finding,) = check_data(recipe, tmp_path)
    assert (finding.code, finding.level) == ("FT301", "warning")


def test_named_files_and_their_type_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    row = '{"instruction": "a", "output": ""}\n'
    (folder / "one.dump").write_text(row)
    (folder / "other.jsonl").write_text(row)

    def found(**source: Any) -> list[str]:
        sources = [{"format": "alpaca", **source}]
        recipe = loaded(**{"data.sources": sources}).recipe
        return [finding.code for finding in check_data(recipe, tmp_path)]

    assert found(path="data", files="one.dump", file_type="json") == ["FT306"]
    assert found(path="data/one.dump", file_type="json") == ["FT306"]
    assert found(path="json", files=["data/one.dump"]) == ["FT306"]
    assert found(path="data", files="*.jsonl") == ["FT306"]
    assert found(path="data", files="missing.jsonl") == ["FT301"]
    assert found(path="data/one.dump") == ["FT303"]
