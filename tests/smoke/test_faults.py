"""Faults injected into a real training of two processes, one after another into the same run.

Each is followed by a resume, and at the end the run has done all its steps. LLaMA-Factory, since it
starts faster; what survives is `ft`'s doing and the probe's, and the same for both.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.metrics import Tail
from orchestrator.setup_run import PROBE
from tests.helpers import write_recipe
from tests.smoke.contract import Place, in_environment, processes_of, record, wait_for
from tests.standin.program import fill

STEPS, SAVE = 60, 5
pytestmark = pytest.mark.backend


@dataclass
class Training:
    """The one run, and the place that it has to itself."""

    place: Place
    disk: Path
    run: Path | None = None
    recipe: Path = field(init=False)

    def write(self) -> None:
        """The recipe: the twin of a shipped one, in two processes."""
        made = self.place.ft(
            "fetch", "agnews-lora", "--smoke", "--backend", "llamafactory", "--json"
        )
        context = made.json["context"]
        columns = {"instruction": "text", "input": None, "output": "label_text"}
        source = {"path": context["sources"][0], "format": "alpaca", "columns": columns}
        self.recipe = write_recipe(
            self.place.work / "two.yaml",
            **{"name": "two", "backend": "llamafactory", "model.base": context["base"],
               "data.sources": [source], "data.sequence_length": 256, "training.epochs": None,
               "training.steps": STEPS, "training.save": SAVE, "training.keep_checkpoints": 2,
               "training.log_every": 1, "output.merge": False, "output.export": False,
               "output.directory": str(self.disk / "runs"),
               "distributed": {"strategy": "ddp", "gpus": 2}},
        )  # fmt: skip

    @contextlib.contextmanager
    def going(self) -> Iterator["subprocess.Popen[str]"]:
        """Start it, or resume it, and wait until it has made a new checkpoint."""
        before = self.steps()
        arguments = ("--resume", str(self.run)) if self.run else (str(self.recipe),)
        with self.place.started(*arguments, runs=self.disk / "runs", run=self.run) as (ft, run):
            self.run = run
            wait_for(lambda: self.steps() >= before + SAVE + 2, alive=ft)
            yield ft

    def steps(self) -> int:
        """The last step that was saved or logged."""
        seen = Tail(self.run / "events.jsonl").read() if self.run else ()
        return max((e["step"] for e in seen if e["event"] == "log"), default=0)

    def rank(self, number: int) -> int:
        """Process id of a rank."""
        assert self.run
        for pid in processes_of(self.run):
            with contextlib.suppress(OSError):
                if f"\0RANK={number}\0" in f"\0{Path(f'/proc/{pid}/environ').read_text()}":
                    return pid
        raise AssertionError(f"there is no rank {number}")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    folder = tmp_path_factory.mktemp("faults")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    made = Training(Place(folder), disk)
    made.write()
    yield made
    if mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def kill_a_rank(training: Training, ft: "subprocess.Popen[str]") -> None:
    os.kill(training.rank(1), signal.SIGKILL)


def kill_the_launcher(training: Training, ft: "subprocess.Popen[str]") -> None:
    assert training.run
    os.kill(record(training.run)["stages"]["train"]["pid"], signal.SIGKILL)


def kill_ft_while_a_rank_hangs(training: Training, ft: "subprocess.Popen[str]") -> None:
    os.kill(training.rank(1), signal.SIGSTOP)
    assert training.run
    status = training.place.ft("runs", "status", training.run, "--json").json
    assert status["status"] == "running"
    ft.kill()


def fill_the_disk(training: Training, ft: "subprocess.Popen[str]") -> None:
    if not training.disk.is_mount():
        pytest.skip("a small file system can be mounted by root only")
    fill(training.disk, training.disk / "ballast")


Fault = Callable[[Training, "subprocess.Popen[str]"], None]
FAULTS: list[tuple[Fault, int, str, str]] = [
    (kill_a_rank, 5, "rank 1 on ", "failed"),
    (kill_the_launcher, 5, "something killed it (SIGKILL)", "failed"),
    (kill_ft_while_a_rank_hangs, -signal.SIGKILL, "", "died"),
    (fill_the_disk, 5, "the disk is full", "failed"),
]


@pytest.mark.parametrize(
    ("fault", "code", "words", "status"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS]
)
def test_what_a_fault_leaves(
    training: Training, fault: Fault, code: int, words: str, status: str
) -> None:
    with training.going() as ft:
        fault(training, ft)
        output, _ = ft.communicate(timeout=120)
    run = training.run
    assert run
    wait_for(lambda: not processes_of(run), 60)
    assert ft.returncode == code, output
    assert words in output
    assert "Traceback" not in output
    assert training.place.ft("runs", "status", run, "--json").json["status"] == status
    (training.disk / "ballast").unlink(missing_ok=True)


def test_then_it_is_done_and_nothing_was_lost(training: Training) -> None:
    run = training.run
    assert run
    kept = sorted((run / "adapter").glob("checkpoint-*"))
    for checkpoint in kept:  # as after a clock that was set back: these are the newest by time
        os.utime(checkpoint, (4e9, 4e9))
    done = training.place.ft("recipe", "run", "--resume", run, "--json")
    assert done.code == 0, done.err
    facts = done.json["stages"]["train"]["facts"]
    assert (facts["global_step"], facts["world_size"]) == (STEPS, 2)
    assert facts["resumed_from"] in [str(checkpoint) for checkpoint in kept]
    assert facts["runtime_seconds"] > 0
    again: dict[int, set[float]] = {}
    for event in Tail(run / "events.jsonl").read():  # one line was torn by the full disk
        if event["event"] == "log" and event.get("loss") is not None:
            again.setdefault(event["step"], set()).add(round(event["loss"], 3))
    assert sorted(again) == list(range(1, STEPS + 1))
    assert max(max(losses) - min(losses) for losses in again.values()) <= 0.002
    names = {checkpoint.name for checkpoint in (run / "adapter").glob("checkpoint-*")}
    assert names == {f"checkpoint-{STEPS - SAVE}", f"checkpoint-{STEPS}"}
    listed = json.loads(
        (run / "adapter" / f"checkpoint-{STEPS}" / "ft-checkpoint.json").read_text()
    )
    assert {"adapter_model.safetensors", "optimizer.pt", "rng_state_1.pth"} <= set(listed["files"])


def test_early_stopping_goes_on_where_it_was(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("patience_driver.py")
    done = in_environment("llamafactory", driver, PROBE.parent, tmp_path)
    line = next((x for x in done.stdout.splitlines() if x.startswith("FOUND ")), done.stderr)
    # killed after its end, it makes one step more, and has the best model all the same
    assert json.loads(line.removeprefix("FOUND ")) == [6, 6, 6, 7]
