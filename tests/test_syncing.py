"""Offline runs of wandb, written by the real wandb and uploaded to a server on this machine."""

import base64
import subprocess
from pathlib import Path

import pytest

from orchestrator.environments.environment import Environment, find
from orchestrator.files import write_json
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record
from orchestrator.runs.syncing import offline_runs
from tests.helpers import Outcome, ft
from tests.wandb_server import receiving

pytestmark = pytest.mark.backend
KEY = "a" * 40

TRAINING = """
import wandb
run = wandb.init(project="p", name="r")
for step in range(3):
    run.log({"loss": 3 - step})
run.finish()
"""


@pytest.fixture(scope="module")
def environment() -> Environment:
    return find("llamafactory")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, environment: Environment) -> Path:
    """A run in which wandb has kept a training."""
    work = tmp_path_factory.mktemp("work")
    folder = work / "runs" / "20260101-000000-r-abcdef"
    write_json(folder / "run.json", {"backend": environment.name, "status": "done"})
    subprocess.run(
        [environment.python, "-c", TRAINING], check=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(work), "WANDB_MODE": "offline",
             "WANDB_DIR": str(folder), "WANDB_SILENT": "true"},
    )  # fmt: skip
    return folder


def sync(run: Path, **environ: str) -> Outcome:
    work = run.parent.parent
    return ft("runs", "sync", "--json", cwd=work, HOME=str(work), XDG_DATA_HOME=str(work / "data"),
              FT_HOME=str(work / "ft"), FT_LLAMAFACTORY_PREFIX=str(find("llamafactory").prefix),
              **environ)  # fmt: skip


def test_without_a_network_or_a_key_it_says_so_and_keeps_the_run(run: Path) -> None:
    done = sync(run, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.code == 4
    assert "wandb's server http://127.0.0.1:9 cannot be reached" in done.err
    done = sync(run, WANDB_API_KEY="")
    assert (done.code, "WANDB_API_KEY" in done.err) == (2, True)
    assert [kept.synced for kept in offline_runs(Record(RunLayout(run), {}))] == [False]


def test_uploaded_once(run: Path) -> None:
    with receiving() as received:
        done = sync(run, WANDB_API_KEY=KEY, WANDB_BASE_URL=received.url, WANDB_MODE="offline")
        assert done.code == 0, done.err
        assert [entry["synced"] for entry in done.json["uploaded"]] == [True]
        assert [row["loss"] for row in received.history] == [3, 2, 1]
        assert "config.yaml" in received.files
        assert received.keys == {"Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()}
        received.history.clear()
        again = sync(run, WANDB_API_KEY=KEY, WANDB_BASE_URL=received.url)
        assert (again.code, again.json["uploaded"], received.history) == (0, [], [])
        assert len(again.json["before"]) == 1
