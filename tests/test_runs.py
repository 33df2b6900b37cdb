"""The record is true whatever happens, and resumed runs have the same plan."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from orchestrator import files, metrics
from orchestrator.backends.base import Target
from orchestrator.environments.home import home
from orchestrator.errors import BackendEnvironmentError, LaunchError, UsageError
from orchestrator.plan import Context, build
from orchestrator.probe.ftprobe.request import write_json
from orchestrator.runs.jobs import end
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.lock import Holder, is_locked, locked
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


def test_a_loss_of_0_is_no_end_where_rewards_are_learned_from() -> None:
    training = metrics.Training(rewarded=True)
    for step in range(1, 5):
        training.take({"event": "log", "step": step, "loss": 0.0})
    assert training.hopeless == ""


def test_layout_names(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "r")
    names = [layout.recipe, layout.record, layout.events, layout.log("train")]
    assert [str(path.relative_to(layout.root)) for path in names] == [
        "recipe.yaml", "run.json", "events.jsonl", "logs/train.log",
    ]  # fmt: skip


def test_an_id_that_several_runs_have(tmp_path: Path) -> None:
    for name in ("20260101-000000-a-ffffff", "20260101-000001-b-ffffff"):
        write(tmp_path, name)
    with pytest.raises(UsageError, match="several runs end with 'ffffff'"):
        find_run("ffffff", tmp_path)
    assert find_run("b-ffffff", tmp_path) == (tmp_path / "20260101-000001-b-ffffff").resolve()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_runs_that_are_not_ours_to_read(public: Path) -> None:
    """Beside ours, in a folder of a group: they are listed, and do not stand in the way."""
    write(public, "20260101-000000-a-ffffff")
    write(public, "20260101-000001-b-ffffff").chmod(0o700 if os.geteuid() == 0 else 0)
    with as_nobody():
        ours, theirs = run_folders(public)
        assert theirs.name == "20260101-000001-b-ffffff"
        with pytest.raises(UsageError, match="permission denied"):
            open_record(theirs)
        assert find_run("latest", public) == ours.resolve()


def test_others_of_a_group_may_go_on_with_a_run(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        record = Record(new_layout(tmp_path, "x"), {})
        with locked(record.layout):
            pass
        write_json(record.layout.result("train"), {})
    finally:
        os.umask(before)
    for file in (record.layout.lock, record.layout.result("train")):
        assert file.stat().st_mode & 0o777 == 0o664


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user whom the system does not know")
    for name in ("HOME", "XDG_DATA_HOME", "FT_HOME"):
        monkeypatch.delenv(name, raising=False)
    home()  # root has one; what it imports is imported
    with as_nobody(987654), pytest.raises(BackendEnvironmentError, match="HOME is not set"):
        home()


def test_a_run_of_another_user_cannot_be_cancelled(public: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a moment")
    record = Record(new_layout(public, "x"), {})
    with subprocess.Popen(["sleep", "60"]) as other, locked(record.layout):
        record.update(status="running", host=socket.gethostname())
        record.layout.lock.write_text(json.dumps(asdict(Holder.of(other.pid))))
        with as_nobody(), pytest.raises(UsageError, match="is another user's"):
            end(record)
        assert other.poll() is None
        other.kill()


@contextlib.contextmanager
def as_nobody(user: int = 65534) -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(user, user, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def write(folder: Path, name: str, **values: Any) -> Path:
    """A run with this record."""
    (folder / name).mkdir()
    (folder / name / "run.json").write_text(json.dumps({"status": "done", **values}))
    return folder / name


@pytest.mark.parametrize("stages", [["train"], {"train": "done"}])
def test_a_record_of_another_shape_is_not_worked_with(tmp_path: Path, stages: Any) -> None:
    root = write(tmp_path, "20260101-000000-a-ffffff", stages=stages)
    with pytest.raises(UsageError, match="cannot be read"):
        open_record(root)


def test_nothing_is_cut_off_where_no_terminal_is(tmp_path: Path) -> None:
    root = write(tmp_path, "20260101-000000-a-name-that-is-rather-long-ffffff")
    (root / "logs").mkdir()
    said = b"\r 1%|\xe2\x96\x88|\r 2%| \xff\r\nend"
    (root / "logs" / "train.log").write_bytes(said)
    assert root.name in ft("runs", "list", "--in", tmp_path, COLUMNS="40").out
    line = [sys.executable, "-m", "orchestrator.cli.main", "runs", "logs", str(root), "train"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == said


def test_what_a_run_says_is_shown_as_it_is(tmp_path: Path) -> None:
    """Brackets in an error are no markup of ours."""
    record = Record(new_layout(tmp_path / "runs", "x"), {})
    why = "[rank0] died in [/data/x]"
    record.update(status="failed", error=why, stages={"train": {"status": "failed", "error": why}})
    for command in ("status", "show"):
        done = ft("runs", command, "latest", cwd=tmp_path)
        assert (done.code, done.out.count(why)) == (0, 2), done.err
