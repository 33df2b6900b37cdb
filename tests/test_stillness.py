"""A training that gives no sign of life is told, beside its own pace."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.metrics import Training
from orchestrator.runs import lock, stillness
from orchestrator.runs.jobs import live
from orchestrator.runs.lock import locked
from orchestrator.runs.record import Record, new_layout
from orchestrator.runs.stillness import FLOOR, Watch
from tests.helpers import ft


@pytest.fixture(autouse=True)
def no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """What renews the lock's time is the test, not the time that the test takes."""
    monkeypatch.setattr(lock, "BEAT", 3600.0)


def trained(folder: Path, *moments: float) -> Record:
    """A run in whose training something was logged at these moments, and nothing since the last."""
    record = Record(new_layout(folder, "x"), {})
    record.update(status="running", stages={"train": {"status": "running"}})
    lines = [
        {"t": t, "event": "log" if step else "train_begin", "step": step, "max_steps": 9}
        for step, t in enumerate(moments)
    ]
    log = record.layout.log("train")
    log.parent.mkdir()
    log.touch()
    record.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for file in (log, record.layout.events):
        os.utime(file, (moments[-1], moments[-1]))
    return record


def renewed(record: Record, moment: float) -> None:
    """As its ft does while it lives."""
    os.utime(record.layout.lock, (moment, moment))


def test_only_what_is_long_beside_its_own_pace(tmp_path: Path) -> None:
    record = trained(tmp_path, 1000, 1010, 1610, 1620)  # an evaluation of ten minutes
    with locked(record.layout):
        for moment, words in (
            (1620 + FLOOR, ""),
            (1620 + 1790, ""),
            (1620 + 1810, "no sign of progress for 30:10 at step 3 of 9, where 10:00 was the "
                          "longest pause"),
        ):  # fmt: skip
            renewed(record, moment)
            found = live(record).still
            assert (found.text if found else "") == words
        os.utime(record.layout.log("train"), (3400, 3400))  # it draws a bar
        assert live(record).still is None
    assert live(record).still is None  # it has died


def test_before_the_first_step(tmp_path: Path) -> None:
    record = trained(tmp_path, 1000)
    with locked(record.layout):
        renewed(record, 1000 + FLOOR + 1)
        found = stillness.of(record)
    assert found
    assert found.text == "no sign of progress for 10:01 before the first step"


def test_the_pause_between_two_processes_is_none(tmp_path: Path) -> None:
    record = trained(tmp_path, 1000, 1010)
    again = {"t": 9000, "event": "train_begin", "step": 1, "max_steps": 9}
    with record.layout.events.open("a") as handle:
        handle.write(json.dumps(again) + "\n")
    os.utime(record.layout.events, (9000, 9000))
    with locked(record.layout):
        renewed(record, 9000 + FLOOR + 1)
        found = stillness.of(record)
    assert found
    assert found.longest == 10


def test_the_commands_say_it(tmp_path: Path) -> None:
    record = trained(tmp_path, 1000, 1010)
    with locked(record.layout):
        renewed(record, 4610)
        run = record.layout.root
        assert "train, still for 1:00:00" in ft("runs", "list", "--in", tmp_path).out
        assert "no sign of progress for 1:00:00" in ft("runs", "status", run).out
        shown = ft("runs", "show", run, "--json").json
    assert shown["still"] == {"seconds": 3600, "longest_pause": 10, "step": 1, "max_steps": 9}


def test_who_follows_it_says_it_once_for_each_pause(tmp_path: Path) -> None:
    now = [0.0]
    log = tmp_path / "log"
    log.write_text("")
    watch = Watch(log, lambda: now[0])

    def at(moment: float, *, events: bool = False) -> str:
        now[0] = moment
        return watch.look(Training(step=2, max_steps=9), events=events)

    assert at(100, events=True) == ""
    assert at(100 + FLOOR) == ""
    assert at(101 + FLOOR) == ("no sign of progress for 10:01 at step 2 of 9, where 1:40 was the "
                               "longest pause")  # fmt: skip
    assert at(200 + FLOOR) == ""
    log.write_text("a bar")
    assert at(300 + FLOOR) == ""
    assert at(301 + 2 * FLOOR) != ""


@pytest.mark.parametrize("stage", ["waiting", "done"])
def test_other_stages_are_not_looked_at(tmp_path: Path, stage: str) -> None:
    record = trained(tmp_path, 1000)
    record.document["stages"]["train"]["status"] = stage
    with locked(record.layout):
        renewed(record, 9000)
        assert stillness.of(record) is None
