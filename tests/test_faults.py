"""What survives what: faults are injected into real `ft` processes over a stand-in backend.

`tests/smoke/test_faults.py` has those that need a real training.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from orchestrator import guard, metrics, shell
from orchestrator.checkpoints import flaw
from orchestrator.errors import LaunchError
from orchestrator.files import read_json
from orchestrator.launchers.elastic import first_failure
from orchestrator.plan import STAGES
from orchestrator.probe.ftprobe.recorder import Recorder
from orchestrator.runs import lock
from orchestrator.runs.jobs import end, live
from orchestrator.runs.lock import Holder, is_locked, locked
from orchestrator.runs.record import Record, find_run, new_layout, open_record, run_folders
from tests.helpers import ROOT, Outcome
from tests.standin import STEPS, Site, command_lines, kill, until
from tests.standin.program import adapter, fill


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def stages(run: Path) -> dict[str, str]:
    return {name: s["status"] for name, s in open_record(run).document["stages"].items()}


def events(run: Path) -> list[dict[str, Any]]:
    return list(metrics.Tail(run / "events.jsonl").read())


def reached(site: Site, stage: str) -> Path:
    """The run, once it has begun a stage."""
    begun = {"event": "stage_begin", "stage": stage}
    run = site.newest()
    return run if any(begun.items() <= e.items() for e in events(run)) else Path()


def one_message(done: Outcome) -> str:
    """What a failed command said; it must be one error, and no traceback."""
    assert "Traceback" not in done.err
    assert "bug in ft" not in done.err
    assert done.err.count("error: ") == 1, done.err
    return done.err.partition("error: ")[2]


# --- kills


@pytest.mark.parametrize("stage", STAGES)
def test_ft_is_killed_in_a_stage(site: Site, stage: str) -> None:
    site.order(**{stage: {"wait": 60, "leave": True, "at": 3 if stage == "train" else 0}})
    with site.started("recipe", "run", site.recipe) as ft:
        run = until(lambda: (found := reached(site, stage)) != Path() and found)
        if stage in ("preprocess", "train", "merge"):
            until(lambda: len(site.processes()) >= 5)  # the guard, the command, its children
        kill(ft)
    until(lambda: not site.processes(), 20)
    found = open_record(run)
    assert live(found).status in ("died", "done")
    assert "running" not in [s["status"] for s in found.document["stages"].values()]
    before = {name: (run / "stages" / f"{name}.done.json") for name in STAGES}
    kept = {name: m.stat().st_mtime_ns for name, m in before.items() if m.is_file()}
    assert set(STAGES[: STAGES.index(stage)]) <= set(kept)
    assert [s for s, status in stages(run).items() if status == "done"] == list(kept)
    site.order()
    done = site.run("--resume", run)
    assert done.code == 0, done.err
    assert set(stages(run).values()) == {"done"}
    assert {name: before[name].stat().st_mtime_ns for name in kept} == kept
    for name in ("preprocess", "train", "merge"):
        assert site.starts(run, name) == (2 if name == stage and name not in kept else 1)
    steps = [e["step"] for e in events(run) if e["event"] == "log"]
    assert steps == ([1, 2, 3, 3, 4, 5, 6] if stage == "train" else list(range(1, STEPS + 1)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_process_group_gets_a_signal(site: Site, number: signal.Signals) -> None:
    site.order(train={"wait": 60, "leave": True, "at": 1})
    with site.started("recipe", "run", site.recipe) as ft:
        until(lambda: len(site.processes()) >= 5 and reached(site, "train") != Path())
        os.killpg(ft.pid, number)
        output, _ = ft.communicate(timeout=60)
    assert (ft.returncode, "--resume" in output, "Traceback" in output) == (130, True, False)
    assert site.processes() == []
    assert open_record(site.newest()).document["status"] == "interrupted"


REPORT = """Root Cause (first observed failure):
[0]:
  time      : 2026-11-22_16:00:38
  host      : {host}
  rank      : {rank} (local_rank: 1)
  exitcode  : {code} (pid: 15070)
  error_file: <N/A>
============================================================
"""


def test_the_rank_that_failed_first_is_named() -> None:
    other = REPORT.format(host="n1", rank=0, code=1)  # it lost its connection
    killed = REPORT.format(host="n2", rank=5, code=-9)
    assert str(first_failure(f"step 3\n{other}{killed}")) == "rank 5 on n2 was ended by SIGKILL"
    assert str(first_failure(other)) == "rank 0 on n1 ended with exit code 1"
    assert first_failure("no report") is None


def guarded(tmp_path: Path, code: str) -> shell.Process:
    return shell.start([sys.executable, "-c", code, str(tmp_path)], env={}, log=tmp_path / "log")


def mine(tmp_path: Path) -> list[int]:
    return [pid for pid, line in command_lines() if str(tmp_path) in line]


HEADLESS = """
import ctypes, subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
threading.Thread(target=time.sleep, args=[60]).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_what_is_below_a_process_that_is_half_ended_is_found() -> None:
    """Seen when the ranks of a killed launcher ended: the first of many threads goes first."""
    half = subprocess.Popen([sys.executable, "-c", HEADLESS], stdout=subprocess.PIPE, text=True)
    assert half.stdout
    child = int(half.stdout.readline())
    try:
        stat = Path(f"/proc/{half.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        assert child in guard.descendants(os.getpid())
    finally:
        os.kill(child, signal.SIGKILL)
        half.kill()
        half.communicate()


def test_the_guard_is_killed(tmp_path: Path) -> None:
    process = guarded(tmp_path, "import time; time.sleep(60)")
    process.popen.kill()
    assert shell.follow(process, log=tmp_path / "log").exit_code == -signal.SIGKILL
    until(lambda: not mine(tmp_path), 20)


def test_the_command_is_killed_and_its_children_are_in_other_sessions(tmp_path: Path) -> None:
    child = f"import time; time.sleep(60); {str(tmp_path)!r}"
    process = guarded(
        tmp_path,
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "time.sleep(60)",
    )
    until(lambda: len(mine(tmp_path)) == 3)
    os.kill(process.pid, signal.SIGKILL)
    done = shell.follow(process, log=tmp_path / "log")
    assert (done.reason, mine(tmp_path)) == ("was ended by SIGKILL", [])


def test_a_stopped_process_is_not_taken_for_ended(tmp_path: Path) -> None:
    process = guarded(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    stat = Path(f"/proc/{process.pid}/stat")
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGCONT)
    assert shell.follow(process, log=tmp_path / "log").exit_code == 0


def test_a_lock_outlives_a_killed_ft_as_long_as_what_it_started(tmp_path: Path) -> None:
    layout = new_layout(tmp_path, "x")
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True); time.sleep(4)"
    )
    code = (
        "import sys, time; from pathlib import Path; from orchestrator import shell\n"
        "from orchestrator.runs.layout import RunLayout\n"
        "from orchestrator.runs.lock import locked\n"
        f"layout = RunLayout(Path({str(layout.root)!r}))\n"
        "with locked(layout):\n"
        f"    argv = [sys.executable, '-c', {deaf!r}]\n"
        "    process = shell.start(argv, env={}, log=layout.log('x'))\n"
        "    while 'deaf' not in layout.log('x').read_text(): time.sleep(0.02)\n"
        "    print('started', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as ft:
        assert ft.stdout
        ft.stdout.readline()
        ft.kill()
        ft.wait()
        assert is_locked(layout)
        with locked(layout):  # waits for what is left, and takes it
            assert lock.holder(layout) == Holder.of(os.getpid())


def test_killed_between_the_end_of_training_and_its_marker(site: Site) -> None:
    done = site.run()
    assert done.code == 0, done.err
    run = site.newest()
    for name in ("train", "merge", "export"):
        (run / "stages" / f"{name}.done.json").unlink()
    assert stages(run)["train"] == "waiting"
    again = site.run("--resume", run)
    assert (again.code, site.starts(run, "train")) == (0, 1), again.err
    document = open_record(run).document
    assert (document["status"], document["stages"]["train"]["facts"]["global_step"]) == ("done", 6)
    # the answer does not help when what it is about is gone or cut short
    (run / "stages" / "train.done.json").unlink()
    cut(run / "adapter" / "adapter_model.safetensors")
    assert site.ft("train", run).code == 0
    assert site.starts(run, "train") == 2


def test_killed_between_the_marker_and_the_record(tmp_path: Path) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    record.update(status="running", host=socket.gethostname(),
                  stages={"fetch": {"status": "running"}, "train": {"status": "done"}})  # fmt: skip
    marker = record.layout.marker("fetch")
    marker.parent.mkdir()
    marker.write_text('{"stage": "fetch", "seconds": 2.0, "facts": {"summary": "here"}}')
    found = open_record(record.layout.root)
    assert found.document["stages"] == {
        "fetch": {"status": "done", "seconds": 2.0, "facts": {"summary": "here"}},
        "train": {"status": "waiting"},
    }
    assert found.status == "died"
    record.layout.marker("train").write_text('{"facts": {}}')
    assert open_record(record.layout.root).status == "done"


# --- a full disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("what", "stage", "at"),
    [
        ("a checkpoint", "train", 4),
        ("an event", "train", 1),
        ("the trained weights", "train", STEPS + 1),
        ("the marker of training", "train", STEPS + 2),
        ("the merged weights", "merge", 0),
        ("prepared data", "preprocess", 0),
    ],
)
def test_the_disk_is_full(tmp_path: Path, small: Path, what: str, stage: str, at: int) -> None:
    site = Site(tmp_path / "site", runs=small / "runs")
    if stage == "preprocess":
        site.home.mkdir()
        (small / "prepared").mkdir()
        (site.home / "prepared").symlink_to(small / "prepared")
    site.order(**{stage: {"fill": str(small / "ballast"), "at": at}})
    done = site.run()
    assert done.code in (5, 6), done.err
    assert "full" in one_message(done) or "No space left" in done.err
    run = site.newest()
    assert live(open_record(run)).status in ("failed", "died")
    assert stages(run)[stage] != "done"
    assert site.processes() == []
    site.order()
    (small / "ballast").unlink()
    again = site.run("--resume", run)
    assert again.code == 0, (what, again.err)
    assert set(stages(run).values()) == {"done"}
    resumed = open_record(run).document["stages"]["train"]["facts"]["resumed_from"]
    assert str(resumed).endswith("checkpoint-2") == (what == "a checkpoint")
    trained = {"train": 2, "merge": 1, "preprocess": 1}
    assert site.starts(run, "train") == (1 if "marker" in what else trained[stage])


def test_a_log_on_a_full_disk_does_not_end_the_run(site: Site) -> None:
    """`ft recipe run > log 2>&1`, or a terminal that has gone: what it says is lost, no more."""
    line = (
        f"exec {sys.executable} -m orchestrator.cli.main recipe run {site.recipe} >/dev/full 2>&1"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **site.environ}
    done = subprocess.run(["bash", "-c", line], cwd=site.work, env=environ, check=False)
    assert (done.returncode, live(open_record(site.newest())).status) == (6, "done")


def test_no_room_for_a_new_run_leaves_nothing(tmp_path: Path, small: Path) -> None:
    site = Site(tmp_path / "site", runs=small / "runs")
    fill(small, small / "ballast")
    done = site.run()
    assert (done.code, "No space left" in one_message(done)) == (6, True)
    assert not (small / "runs").exists() or list((small / "runs").iterdir()) == []


def test_a_file_system_that_can_only_be_read(site: Site) -> None:
    assert site.ft("fetch", site.recipe).code == 0
    run = site.newest()
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "status": "running"}))
    bind = ["mount", "--bind", str(site.runs), str(site.runs)]
    if subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(site.runs)], check=True)
        shown = site.ft("runs", "show", run.name, "--json")
        assert shown.json["status"] == "died"
        done = site.run("--resume", run)
        assert (done.code, "Read-only" in one_message(done)) == (6, True)
    finally:
        subprocess.run(["umount", "-l", str(site.runs)], check=True)


# --- two at once


def test_two_resume_the_same_run(site: Site) -> None:
    site.order(train={"wait": 60, "at": 3})
    with site.started("recipe", "run", site.recipe) as ft:
        run = until(lambda: (found := reached(site, "train")) != Path() and found)
        until(lambda: [e for e in events(run) if e.get("step") == 3])
        kill(ft)
    go_on = site.work / "go-on"
    site.order(train={"until": str(go_on), "at": 3})
    with site.started("recipe", "run", "--resume", run) as first:
        until(lambda: site.starts(run, "train") == 2)
        second = site.run("--resume", run)
        assert second.code == 6
        go_on.touch()
        assert f"(process {first.pid} on " in one_message(second)
        output, _ = first.communicate(timeout=30)
    assert first.returncode == 0, output
    assert set(stages(run).values()) == {"done"}
    assert site.starts(run, "train") == 2


def test_two_runs_at_once_share_the_prepared_data(site: Site) -> None:
    site.order(preprocess={"wait": 1})
    with (
        site.started("preprocess", site.recipe) as one,
        site.started("preprocess", site.recipe) as two,
    ):
        for process in (one, two):
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 0, output
    runs = run_folders(site.runs)
    assert len(runs) == 2
    assert sum(site.starts(run, "preprocess") for run in runs) == 1
    facts = [open_record(run).document["stages"]["preprocess"]["facts"] for run in runs]
    assert sorted(fact["reused"] for fact in facts) == [False, True]


def test_readers_beside_a_writer_see_whole_records(site: Site) -> None:
    """Also a run that has just ended is not called dead."""
    site.order(train={"seconds": 0.1})
    seen: set[str] = set()
    with site.started("recipe", "run", site.recipe) as ft:
        run = until(site.newest)
        while ft.poll() is None:
            record = open_record(run)
            assert not record.recovered
            seen.add(live(record).status)
            metrics.read_training(run / "events.jsonl")
            if "train" in seen_stages(record) and "cli" not in seen:
                for command in (("status", run), ("logs", run), ("list", "--in", run.parent)):
                    assert site.ft("runs", *command).code == 0
                seen.add("cli")
        assert ft.returncode == 0, ft.communicate()[0]
    assert seen - {"done"} == {"waiting", "running", "cli"}


def seen_stages(record: Record) -> list[str]:
    return [n for n, s in record.document["stages"].items() if s["status"] != "waiting"]


def test_a_reader_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    layout = new_layout(tmp_path, "x")
    with locked(layout):
        pass
    code = (
        "from pathlib import Path; from orchestrator.runs.layout import RunLayout\n"
        "from orchestrator.runs.lock import is_locked\n"
        f"layout = RunLayout(Path({str(layout.root)!r})); print('reads', flush=True)\n"
        "while True: is_locked(layout)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        reader.stdout.readline()
        for _ in range(50):
            with locked(layout):
                assert is_locked(layout)
        reader.kill()


# --- broken files


@pytest.mark.parametrize("content", ["", '{"status": "do', None])
def test_the_record_is_broken(tmp_path: Path, content: str | None) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    record.update(status="running", host=socket.gethostname(), backend="axolotl")
    record.update(stages={"fetch": {"status": "running"}, "train": {"status": "waiting"}})
    record.layout.marker("fetch").parent.mkdir()
    record.layout.marker("fetch").write_text('{"facts": {}}')
    record.stage("train", status="running")
    record.layout.record.unlink()
    if content is not None:
        record.layout.record.write_text(content)
    assert run_folders(tmp_path) == [record.layout.root]
    found = open_record(record.layout.root)
    assert (found.recovered, found.status, found.document["backend"]) == (True, "died", "axolotl")
    assert found.document["stages"]["fetch"]["status"] == "done"
    found.update(status="failed")
    assert not open_record(record.layout.root).recovered


def test_a_run_with_a_broken_record_goes_on(site: Site) -> None:
    assert site.ft("preprocess", site.recipe).code == 0
    run = site.newest()
    (run / "run.json").write_text("")
    shown = site.ft("runs", "show", run.name)
    assert (shown.code, "cannot be read" in shown.err) == (0, True)
    done = site.run("--resume", run)
    assert done.code == 0, done.err
    assert set(stages(run).values()) == {"done"}
    assert site.starts(run, "preprocess") == 1


def test_nothing_is_left_of_the_record(site: Site) -> None:
    run = site.runs / "20260101-000000-x-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{")
    assert site.ft("runs", "list", "--json").json[0]["status"] == "broken"
    done = site.run("--resume", run)
    assert (done.code, "cannot be read" in one_message(done)) == (2, True)


def test_a_torn_line_of_events_takes_no_other_along(tmp_path: Path) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    record.event("one")
    with record.layout.events.open("a") as handle:
        handle.write('{"event": "tor')
    assert [e["event"] for e in events(record.layout.root)] == ["one"]
    record.event("two")
    assert [e["event"] for e in events(record.layout.root)] == ["one", "two"]


def test_an_event_that_cannot_be_written_does_not_end_training(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(small / "events.jsonl")
    recorder.write({"event": "one"})
    fill(small, small / "ballast")
    recorder.write({"event": "two", "long": "x" * 9000})
    assert "an event was not recorded: [Errno 28]" in capsys.readouterr().err
    (small / "ballast").unlink()
    recorder.write({"event": "three"})
    assert [e["event"] for e in events(small)] == ["one", "three"]


STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def without(made: Path, *names: str) -> None:
    for name in names:
        (made / name).unlink()


def unlisted(folder: Path) -> Path:
    """A checkpoint as the trainer writes it, of one rank."""
    made = folder / "checkpoint-4"
    adapter(made)
    (made / "trainer_state.json").write_text('{"global_step": 4}')
    for name in STATE:
        whole_zip(made / name)
    return made


def whole_zip(path: Path) -> None:
    path.write_bytes(b"PK\x05\x06" + bytes(18))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-6])


def deepspeed(made: Path, *, ranks: int = 2, states: int = 2, latest: str = "global_step4") -> None:
    without(made, *STATE)
    (made / "latest").write_text(latest)
    (made / "global_step4").mkdir()
    whole_zip(made / "global_step4" / "mp_rank_00_model_states.pt")
    for rank in range(ranks):
        whole_zip(made / f"rng_state_{rank}.pth")
    for rank in range(states):
        whole_zip(made / "global_step4" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def shards(made: Path) -> None:
    (made / "adapter_config.json").unlink()
    (made / "adapter_model.safetensors").rename(made / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))


def listed(made: Path, change: Callable[[Path], object]) -> None:
    sizes = {file.name: file.stat().st_size for file in made.iterdir()}
    (made / "ft-checkpoint.json").write_text(json.dumps({"step": 4, "files": sizes}))
    change(made)


def fsdp(made: Path, part: str) -> None:
    without(made, "optimizer.pt", "adapter_model.safetensors")
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (made / name).mkdir()
        (made / name / "__0_0.distcp").touch()
        if name != part:
            (made / name / ".metadata").touch()


def listed_as(made: Path, text: str) -> None:
    (made / "ft-checkpoint.json").write_text(text)
    without(made, "optimizer.pt")


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "whole": (lambda made: None, ""),
    "weights only": (lambda made: without(made, *STATE), ""),
    "no state": (lambda made: without(made, "trainer_state.json"), "trainer_state.json"),
    "state cut short": (lambda made: cut(made / "trainer_state.json"), "trainer_state.json"),
    "weights cut short": (lambda made: cut(made / "adapter_model.safetensors"), "cut short"),
    "no optimizer": (lambda made: without(made, "optimizer.pt"), "optimizer's state"),
    "optimizer cut short": (lambda made: cut(made / "optimizer.pt"), "optimizer.pt is cut short"),
    "no generators": (lambda made: without(made, "rng_state.pth"), "random generators"),
    "generators of one rank of two": (
        lambda made: (made / "rng_state.pth").rename(made / "rng_state_0.pth"),
        "random generators",
    ),
    "no schedule": (lambda made: without(made, "scheduler.pt"), "scheduler.pt"),
    "a shard is missing": (shards, "b.safetensors"),
    "an index that names nothing": (
        lambda made: (made / "adapter_model.safetensors.index.json").write_text("{}"),
        "index.json is cut short",
    ),
    "FSDP, whole": (lambda made: fsdp(made, ""), ""),
    "FSDP, the optimizer is cut short": (
        lambda made: fsdp(made, "optimizer_0"),
        "optimizer_0 is cut short",
    ),
    "ZeRO, twelve ranks": (lambda made: deepspeed(made, ranks=12, states=12), ""),
    "ZeRO, latest is empty": (lambda made: deepspeed(made, latest=""), "of 0 of 2 ranks"),
    "ZeRO, latest is not text": (lambda made: deepspeed(made, latest="\0\0"), "is missing"),
    "a list that names nothing": (lambda made: listed_as(made, "{}"), "optimizer's state"),
    "ZeRO, whole": (deepspeed, ""),
    "ZeRO, a rank's part is missing": (lambda made: deepspeed(made, states=1), "1 of 2 ranks"),
    "ZeRO, latest names nothing": (
        lambda made: deepspeed(made, latest="global_step9"),
        "global_step9, which `latest` names, is missing",
    ),
    "listed, whole": (lambda made: listed(made, lambda made: None), ""),
    "listed, one missing": (
        lambda made: listed(made, lambda made: without(made, "optimizer.pt")),
        "optimizer.pt is missing",
    ),
    "listed, one cut short": (
        lambda made: listed(made, lambda made: cut(made / "optimizer.pt")),
        "optimizer.pt has 16 of 22 bytes",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_were_cut_short(tmp_path: Path, name: str) -> None:
    change, words = CHECKPOINTS[name]
    made = unlisted(tmp_path)
    change(made)
    found = flaw(made)
    assert words in found
    assert bool(words) == bool(found)


def test_a_checkpoint_that_cannot_be_read_is_not_called_broken(tmp_path: Path) -> None:
    """Reading memory of a process at 0 is a real input/output error."""
    for name in ("trainer_state.json", "adapter_model.safetensors"):
        made = unlisted(tmp_path / name)
        (made / name).unlink()
        (made / name).symlink_to("/proc/self/mem")
        with pytest.raises(LaunchError, match=r"cannot read .*: Input/output error"):
            flaw(made)


def test_what_is_removed_before_a_resume(site: Site) -> None:
    assert site.ft("preprocess", site.recipe).code == 0
    run = site.newest()
    for name, step in (("checkpoint-2", 2), ("checkpoint-4", None), ("checkpoint-2-good", 2)):
        made = run / "adapter" / name
        adapter(made)
        if step:
            (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    site.order(train={"steps": 3})
    done = site.ft("train", run)
    assert done.code == 0, done.err
    assert "checkpoint-4 is removed: trainer_state.json" in done.err
    assert "resume from checkpoint-2" in done.err
    names = {checkpoint.name for checkpoint in (run / "adapter").glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-2-good"}


def test_a_file_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "marker.json") is None
    (tmp_path / "marker.json").symlink_to("/proc/self/mem")
    with pytest.raises(LaunchError, match="cannot read"):
        read_json(tmp_path / "marker.json")


def test_killed_between_an_early_end_and_its_marker(site: Site) -> None:
    """Training is not done again, unless it had ended because it was asked to."""
    recipe = yaml.safe_load(site.recipe.read_text())
    recipe["training"] |= {"early_stopping": 1, "evaluate": 2}
    recipe["data"]["validation"] = 0.5
    site.recipe.write_text(yaml.safe_dump(recipe))
    site.order(train={"of": 99})
    assert site.ft("train", site.recipe).code == 0
    run = site.newest()
    stop = run / "stages" / "train.stop"
    for asked in (False, True):
        (run / "stages" / "train.done.json").unlink()
        if asked:
            stop.touch()
        again = site.ft("train", run)
        assert (again.code, site.starts(run, "train")) == (0, 2 if asked else 1), again.err
    assert not stop.exists()


# --- clocks, hosts, process ids


def test_runs_are_in_their_order_when_the_clock_is_set_back(tmp_path: Path) -> None:
    tomorrow = time.strftime("%Y%m%d-%H%M%S", time.localtime(time.time() + 86400))
    (tmp_path / f"{tomorrow}-x-000000").mkdir()
    (tmp_path / "99999999-999999-no-time").mkdir()
    (tmp_path / "99999999-999999-no-time").rmdir()
    made = [Record(new_layout(tmp_path, name), {}) for name in "cba"]
    for record in made:
        record.update(status="done")
    assert made[0].layout.id[:15] > tomorrow
    assert run_folders(tmp_path) == [record.layout.root for record in made]
    assert find_run("latest", tmp_path) == made[-1].layout.root


def test_durations_do_not_follow_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    args = SimpleNamespace(world_size=1, output_dir="out")
    recorder = Recorder(None)
    recorder.peak = {"host": 1}
    for step, clock in enumerate((2e9, 1e9, 0.0)):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        recorder.record("log", args, SimpleNamespace(global_step=step, max_steps=2, epoch=0.0))
    assert 0 <= recorder.result()["runtime_seconds"] < 60


@pytest.mark.parametrize("who", ["another program", "nobody"])
def test_a_process_id_that_is_used_again(tmp_path: Path, who: str) -> None:
    """The record says `running` with the number of a program that is not ours."""
    record = Record(new_layout(tmp_path, "x"), {})
    other = subprocess.Popen(["sleep", "60"])
    if who == "nobody":
        other.kill()
        other.wait()
    record.update(status="running", pid=other.pid, host=socket.gethostname())
    lock_file = record.layout.lock
    lock_file.write_text(
        json.dumps({"pid": other.pid, "host": socket.gethostname(), "began": "b:1"})
    )
    holder = lock.holder(record.layout)
    assert holder
    assert not holder.alive
    assert end(record).status == "died"
    with locked(record.layout):
        assert live(open_record(record.layout.root)).status == "running"
    if who == "another program":
        assert other.poll() is None
        other.kill()
        other.wait()


def test_a_run_of_another_host_is_not_called_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    with locked(record.layout):
        record.update(status="running", pid=1, host="node7")
    found = live(open_record(record.layout.root))
    assert found.status == "running"
    assert found.reason == "not confirmed: node7 said so, and cannot be asked from here"
    assert lock.left_alone(record.layout, 0.2)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    with locked(record.layout):  # as it looks where locks do not reach, but files do
        assert not lock.left_alone(record.layout, 5)


def test_locks_that_the_file_system_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such file system can be made here, so only the system's answer is not real."""

    def without(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", without)
    layout = new_layout(tmp_path, "x")
    with locked(layout):
        assert is_locked(layout)
        parent = Holder.of(os.getppid())
        layout.lock.write_text(json.dumps(
            {"pid": parent.pid, "host": parent.host, "began": parent.began}))  # fmt: skip
        with pytest.raises(LaunchError, match="another ft works on"), locked(layout):
            pass


def test_a_run_folder_that_was_moved(tmp_path: Path, site: Site) -> None:
    site.order(train={"wait": 60, "at": 3})
    with site.started("recipe", "run", site.recipe) as ft:
        run = until(lambda: (found := reached(site, "train")) != Path() and found)
        until(lambda: [e for e in events(run) if e.get("step") == 3])
        kill(ft)
    until(lambda: not site.processes(), 20)
    moved = run.rename(tmp_path / "elsewhere")
    site.order()
    done = site.run("--resume", moved)
    assert done.code == 0, done.err
    assert site.starts(moved, "train") == 2
    train = open_record(moved).document["stages"]["train"]["facts"]
    assert train["resumed_from"] == str(moved / "adapter" / "checkpoint-2")
    assert not run.exists()
