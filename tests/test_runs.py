"""The record is true whatever happens, and resumed runs have the same plan."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import files, metrics
from orchestrator.backends.base import Target
from orchestrator.errors import LaunchError, UsageError
from orchestrator.plan import Context, build
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.lock import is_locked, locked
from orchestrator.runs.record import (
    Record,
    find_run,
    new_layout,
    open_record,
    run_folders,
)
from tests.helpers import ROOT, ft, loaded


def context(**changes: Any) -> Context:
    values: dict[str, Any] = {
        "root": "/runs/r1", "python": "/env/bin/python", "probe": "/ft/stage.py",
        "prepared": "/prepared/x", "target": Target("cuda", True, 1),
        "sources": ("/data/a.jsonl",),
    }  # fmt: skip
    return Context(**{**values, **changes})


def test_context_survives_the_record() -> None:
    original = context(smoke={"family": "mistral"}, offline=True)
    import json

    assert Context.from_dict(json.loads(json.dumps(original.as_dict()))) == original


def test_plan_is_pure() -> None:
    recipe = loaded().recipe
    assert build(recipe, context()) == build(recipe, context())


def test_one_process_is_started_directly_and_several_by_the_launcher() -> None:
    plan = build(loaded().recipe, context())
    assert [stage.name for stage in plan.stages] == [
        "fetch", "preprocess", "inspect", "train", "merge", "export",
    ]  # fmt: skip
    train = plan.stage("train")
    assert train
    assert train.argv == (
        "/env/bin/python", "/ft/stage.py", "/runs/r1/rendered/train.request.json",
    )  # fmt: skip
    recipe = loaded(**{"distributed.strategy": "deepspeed", "distributed.gpus": 4}).recipe
    train = build(recipe, context(target=Target("cuda", True, 4))).stage("train")
    assert train
    assert train.argv[:3] == ("/env/bin/python", "-m", "torch.distributed.run")
    assert "--nproc-per-node=4" in train.argv
    assert "--rdzv-endpoint=localhost:0" in train.argv


def test_stages_follow_what_is_asked_for() -> None:
    full = build(loaded(adapter=None).recipe, context())
    assert [s.name for s in full.stages] == ["fetch", "preprocess", "inspect", "train", "export"]
    assert full.training_output == Path("/runs/r1/model")
    bare = build(loaded(**{"output.merge": False, "output.export": False}).recipe, context())
    assert [s.name for s in bare.stages] == ["fetch", "preprocess", "inspect", "train"]


def test_secrets_are_in_no_file_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    recipe = loaded(**{"tracking.type": "wandb"}).recipe
    assert "s3cret" not in repr(build(recipe, context()))


def test_new_runs_never_share_a_folder(tmp_path: Path) -> None:
    assert len({new_layout(tmp_path, "x").root for _ in range(5)}) == 5


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match="cannot make a run folder"):
        new_layout(tmp_path / "file" / "x", "x")


def test_a_run_is_running_only_while_its_lock_is_held(tmp_path: Path) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    record.update(status="running")
    assert open_record(record.layout.root).status == "died"
    with locked(record.layout):
        assert open_record(record.layout.root).status == "running"
        code = (
            "import sys; from pathlib import Path\n"
            "from orchestrator.runs.record import open_record\n"
            "from orchestrator.runs.lock import locked\n"
            "from orchestrator.errors import LaunchError\n"
            f"r = open_record(Path({str(record.layout.root)!r}))\n"
            "try:\n    locked(r.layout).__enter__()\n"
            "except LaunchError as e: sys.exit('another ft' in e.message and 7)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
        assert done.returncode == 7
    assert not is_locked(record.layout)


def test_finding_runs(tmp_path: Path) -> None:
    first = Record(new_layout(tmp_path, "a"), {})
    first.update(status="done")
    second = Record(new_layout(tmp_path, "b"), {})
    second.update(status="done")
    (tmp_path / "prepared").mkdir()
    assert len(run_folders(tmp_path)) == 2
    assert find_run(first.layout.id, tmp_path) == first.layout.root
    assert find_run(first.layout.id[-6:], tmp_path) == first.layout.root
    assert find_run(str(second.layout.root), tmp_path / "none") == second.layout.root
    assert find_run("nothing", tmp_path) is None
    with pytest.raises(UsageError, match="not the folder of a run"):
        open_record(tmp_path)


def test_atomic_writes_leave_the_old_file_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "f.json"
    files.write_json(target, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LaunchError, match="No space left"):
        files.write_json(target, {"a": 2})
    assert files.read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_metrics_follow_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail, training = metrics.Tail(path), metrics.Training()
    with path.open("w") as handle:
        for step, loss in enumerate([4.0, 3.0, 2.0, 1.0], 1):
            handle.write(f'{{"event": "log", "step": {step}, "max_steps": 4, "loss": {loss}}}\n')
        handle.write('{"event": "lo')
        handle.flush()
        for event in tail.read():
            training.take(event)
        assert (training.step, training.loss, training.change()) == (4, 1.0, (4.0, 1.0))
        handle.write('g", "step": 5, "loss": NaN}\nnot json\n')
        handle.flush()
        for event in tail.read():
            training.take(event)
    assert training.step == 5


@pytest.mark.parametrize(
    ("losses", "words"),
    [([1.0, 0.0, 0.0, 0.0], "exactly 0"), ([float("nan")] * 3, "not a number"), ([0.0] * 2, "")],
)
def test_training_without_hope(losses: list[float], words: str) -> None:
    training = metrics.Training()
    for step, loss in enumerate(losses, 1):
        training.take({"event": "log", "step": step, "loss": loss})
    assert words in training.hopeless
    assert bool(training.hopeless) == bool(words)


def test_layout_names(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "r")
    names = [layout.recipe, layout.record, layout.events, layout.log("train")]
    assert [str(path.relative_to(layout.root)) for path in names] == [
        "recipe.yaml", "run.json", "events.jsonl", "logs/train.log",
    ]  # fmt: skip


def test_what_a_run_says_is_shown_as_it_is(tmp_path: Path) -> None:
    """Brackets in an error are no markup of ours."""
    record = Record(new_layout(tmp_path / "runs", "x"), {})
    why = "[rank0] died in [/data/x]"
    record.update(status="failed", error=why, stages={"train": {"status": "failed", "error": why}})
    for command in ("status", "show"):
        done = ft("runs", command, "latest", cwd=tmp_path)
        assert (done.code, done.out.count(why)) == (0, 2), done.err
