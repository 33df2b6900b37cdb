"""`ft recipe new` writes recipes that pass; `ft recipe diff` shows what differs, no more."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data_check.guess import guess
from orchestrator.recipe.load import load
from orchestrator.runs.layout import RunLayout
from orchestrator.yaml_out import dump
from tests.helpers import ROOT, document, ft, write_recipe

ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [{"question": "a", "answer": "b"}],
    "messages": [{"dialogue": [{"role": "user", "content": "a"},
                               {"role": "bot", "content": "b"}]}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "a"},
                                    {"from": "gpt", "value": "b"}]}],
    "text": [{"content": "a"}],
    "kto": [{"prompt": "a", "completion": "b", "label": True}],
    "preference": [{"messages": [{"role": "user", "content": "a"}],
                    "chosen": {"role": "assistant", "content": "b"},
                    "rejected": {"role": "assistant", "content": "c"}}],
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_data_shows_its_format_and_the_recipe_passes(tmp_path: Path, name: str) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    method = "dpo" if name == "preference" else "lora"
    done = ft(
        "recipe", "new", "mine", "--base", "Qwen/Qwen2.5-3B-Instruct", "--data", "d.jsonl",
        "--method", method, cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    recipe = load(tmp_path / "recipes" / "mine.yaml").recipe
    assert recipe.data.sources[0].format == name
    validated = ft("recipe", "validate", "mine", cwd=tmp_path)
    assert validated.code == 0, validated.err


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
def test_flags(tmp_path: Path, method: str, backend: str) -> None:
    done = ft(
        "recipe", "new", "x", "--base", "meta-llama/Llama-3.2-1B-Instruct", "--data", "a/b",
        "--format", "messages", "--method", method, "--backend", backend, "--out", "r.yaml",
        "--set", "training.epochs=3", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    recipe = load(tmp_path / "r.yaml").recipe
    assert recipe.backend == backend
    assert recipe.data.chat_template == "llama3"
    assert recipe.training.epochs == 3
    assert recipe.adapter.type == ("none" if method == "full" else "lora")
    assert "# passes over the data" in (tmp_path / "r.yaml").read_text()
    assert ft("recipe", "validate", "r.yaml", cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--base", "a/b"], "needs a base and data"),
        (["--base", "a/b", "--data", "c/d"], "--format"),
        (["--base", "a/b", "--data", "c/d", "--format", "x"], "unknown format"),
        (["--base", "a/b", "--data", "c/d", "--method", "x"], "unknown method"),
        (["--base", "a/b", "--data", "none.jsonl", "--format", "alpaca"], "no data at none.jsonl"),
        (["--from", "mistral-qlora", "--base", "a/b"], "--from copies"),
        (["--from", "nonsense"], "no recipe"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, flags: list[str], words: str) -> None:
    done = ft("recipe", "new", "mine", *flags, cwd=tmp_path)
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "recipes").exists()


def test_guessing_gives_up() -> None:
    assert guess([]) is None
    assert guess([{"a": 1}]) is None
    assert guess([{"chosen": "a", "rejected": "b", "prompt": "c"}]) is None


def test_columns_and_roles_of_a_conversation() -> None:
    found = guess(ROWS["messages"])
    assert found
    assert (found.columns, found.roles) == ({"messages": "dialogue"}, {"assistant": "bot"})


def differences(*sides: Path, cwd: Path) -> dict[str, tuple[Any, Any]]:
    done = ft("recipe", "diff", *sides, "--json", cwd=cwd)
    assert done.code == 0, done.err
    return {d["field"]: (d["left"], d["right"]) for d in done.json["differences"]}


def test_diff_of_recipes(tmp_path: Path) -> None:
    left = write_recipe(tmp_path / "a.yaml", **{"training.warmup_steps": 0})
    right = write_recipe(
        tmp_path / "b.yaml", **{"training.epochs": 2, "adapter.targets": ["q_proj"]}
    )
    assert differences(left, right, cwd=tmp_path) == {
        "training.epochs": (1.0, 2.0),
        "adapter.targets": ("all-linear", ["q_proj"]),
    }
    assert differences(left, left, cwd=tmp_path) == {}
    shown = ft("recipe", "diff", left, right, cwd=tmp_path).out
    assert "training.epochs" in shown
    assert "learning_rate" not in shown


def run(folder: Path, name: str, loss: float, release: str) -> Path:
    root = folder / "runs" / name
    root.mkdir(parents=True)
    (root / "recipe.yaml").write_text(dump(document()))
    facts = {"global_step": 10, "loss": {"first": 3.0, "last": loss, "eval": None}}
    record = {"status": "done", "environment": {"release": release}, "fingerprint": "data-1",
              "stages": {"train": {"status": "done", "facts": facts}}}  # fmt: skip
    (root / "run.json").write_text(json.dumps(record))
    marker = RunLayout(root).marker("train")
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps({"stage": "train", "facts": facts}))
    return root


def test_diff_of_runs(tmp_path: Path) -> None:
    one = run(tmp_path, "20261122-a-000001", 1.5, "0.19.0")
    two = run(tmp_path, "20261122-a-000002", 1.25, "0.18.0")
    found = differences(one, two, cwd=tmp_path)
    assert found == {"run.release": ("0.19.0", "0.18.0"), "run.loss.last": (1.5, 1.25)}
    assert ft("recipe", "diff", "000001", "none", cwd=tmp_path).code == 2


def test_a_terminal_is_asked_for_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS["messages"]))
    answers = {
        "base model": "Qwen/Qwen2.5-3B-Instruct",
        "data (": "d.jsonl",
        "method [": "qlora",
    }
    screen = on_a_terminal(["recipe", "new", "mine"], answers, tmp_path)
    assert "wrote" in screen, screen
    recipe = load(tmp_path / "recipes" / "mine.yaml").recipe
    assert recipe.model.quantization == "nf4"
    assert Path(recipe.data.sources[0].path).name == "d.jsonl"
    assert ft("recipe", "validate", "mine", cwd=tmp_path).code == 0


def on_a_terminal(arguments: list[str], answers: dict[str, str], cwd: Path) -> str:
    """What `ft` shows on a terminal where each question is answered once it stands there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=cwd, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown, waiting = "", dict(answers)
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([master], [], [], 1)
            if ready:
                try:
                    shown += os.read(master, 4096).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
            for question in [q for q in waiting if q in shown]:
                os.write(master, waiting.pop(question).encode() + b"\n")
        process.wait(timeout=10)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert not waiting, shown
    return shown
