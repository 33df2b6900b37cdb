"""Runs as jobs of a real Slurm with two nodes, with real modules and a real backend."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.launchers import slurm
from tests.helpers import write_recipe
from tests.hub_server import Hub, HubRepository, folder, serving
from tests.slurm.conftest import SlurmPlace
from tests.smoke.contract import events, losses, processes_of, record, wait_for

pytestmark = pytest.mark.backend
BACKEND = "llamafactory"
STEPS = 300


def status(place: SlurmPlace, run: Path) -> dict[str, Any]:
    """`ft runs status`."""
    document: dict[str, Any] = place.ft("runs", "status", run, "--json").json
    return document


def states(place: SlurmPlace, run: Path) -> dict[str, str]:
    """Slurm's state of each job by its name."""
    return {job["name"]: job["state"] for job in status(place, run)["jobs"]}


def nothing_is_queued(place: SlurmPlace) -> None:
    """A job that has ended is shown while Slurm cleans up behind it."""
    wait_for(lambda: not place.slurm("squeue", "--noheader").strip(), 60)


def submitted(place: SlurmPlace, *arguments: str | Path) -> Path:
    """Submit a run and return its folder."""
    done = place.ft("recipe", "run", *arguments, "--json")
    assert done.code == 0, done.err
    assert done.json["status"] == "queued"
    return Path(done.json["path"])


def job_id(run: Path, name: str) -> str:
    """The id of a job."""
    return next(str(job["id"]) for job in record(run)["jobs"] if job["name"] == name)


def said(run: Path) -> str:
    """Everything that the jobs of a run printed."""
    return "\n".join(path.read_text() for path in sorted((run / "logs").glob("slurm-*.log")))


@pytest.fixture(scope="session")
def tiny(place: SlurmPlace) -> Path:
    """A tiny model."""
    done = place.ft("fetch", "mistral-qlora", "--smoke", "--backend", BACKEND, "--json")
    assert done.code == 0, done.err
    return Path(done.json["context"]["base"])


@pytest.fixture(scope="session")
def hub(place: SlurmPlace, tiny: Path) -> Iterator[Hub]:
    """A hub with that model and a data set of two splits; nodes in namespaces cannot reach it."""
    words = ["red", "blue", "green", "white"]
    rows = [
        {"instruction": f"Say {words[i % 4]} {i}.", "input": "", "output": f"{words[i % 4]} it is"}
        for i in range(64)
    ]
    train = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = HubRepository({"train.jsonl": train, "test.jsonl": train[: train.index(b"\n") + 1]})
    model = HubRepository({**folder(tiny), "pytorch_model.bin": b"not needed"})
    with serving({"models/user/tiny": model, "datasets/user/words": data}) as server:
        place.environ |= server.environ(place.work / "hub-cache")
        yield server


@pytest.fixture(scope="session")
def recipe(place: SlurmPlace, tiny: Path, hub: Hub) -> Callable[..., Path]:
    """A recipe on the tiny model and the hub's data set."""

    def write(name: str, **changes: Any) -> Path:
        return write_recipe(
            place.work / f"{name}.yaml",
            **{"name": name, "backend": BACKEND, "model.base": str(tiny),
               "model.dtype": "float32", "data.sequence_length": 160,
               "data.sources": [{"path": "user/words", "format": "alpaca"}],
               "training.epochs": None, "training.steps": STEPS, "training.log_every": 1,
               "training.micro_batch_size": 2, "training.save": 50,
               "output.merge": False, "output.export": False, **changes},
        )  # fmt: skip

    return write


@pytest.fixture(scope="session")
def chain(place: SlurmPlace, recipe: Callable[..., Path]) -> Path:
    """A whole run with model and data of the hub, made once."""
    file = recipe("chain", **{"model.base": "user/tiny", "output.merge": True,
                              "output.export": True, "tracking.type": "wandb"})  # fmt: skip
    run = submitted(place, file, "--on", "toy")
    waited = place.ft("runs", "wait", run, "--timeout", "500", "--json")
    assert waited.code == 0, (waited.err, waited.out, said(run))
    return run


def test_check_of_the_profile(place: SlurmPlace) -> None:
    done = place.ft("cluster", "check", "toy", "--backend", BACKEND, "--json")
    levels = {entry["name"]: entry["level"] for entry in done.json}
    assert done.code == 0, done.out
    assert "error" not in levels.values()
    place.profile("wrong", partition="gpuu", modules=["Nope/1.0"], scratch="/proc/x")
    done = place.ft("cluster", "check", "wrong", "--backend", BACKEND, "--json")
    found = {entry["name"]: entry["detail"] for entry in done.json if entry["level"] == "error"}
    assert done.code == 3
    assert "invalid partition" in found["training jobs"].lower()
    assert "the module Nope/1.0 cannot be loaded" in found[f"{BACKEND}: start of a job"]
    assert "cannot be written" in found["scratch"]


def test_options_reach_slurm_as_they_are(place: SlurmPlace) -> None:
    """sbatch reads its lines by rules of its own: a backslash means something in any quotes."""
    script = place.work / "odd.sh"
    for odd in ("a 'b' \"c\" #d", "$HOME `id` %j", "\\ back \\\\ \\' \\n\\", "ünï 日本"):
        lines = slurm.directives([("comment", odd), ("output", "/dev/null"), ("hold", "")])
        script.write_text("\n".join(["#!/bin/bash", *lines, "true", ""]))
        job = place.slurm("sbatch", "--parsable", str(script)).strip()
        assert place.slurm("squeue", "--noheader", f"--jobs={job}", "--format=%k") == f"{odd}\n"
        assert place.slurm("squeue", "--noheader", "--format=%i|%o") == f"{job}|{script}\n"
        place.slurm("scancel", job)


def test_chain_of_jobs_makes_a_model(place: SlurmPlace, chain: Path) -> None:
    document = record(chain)
    assert document["status"] == "done"
    assert {s["status"] for s in document["stages"].values()} == {"done"}
    done = dict.fromkeys(("prepare", "train", "finish"), "COMPLETED")
    wait_for(lambda: states(place, chain) == done, 60)
    assert (chain / "export" / "model.safetensors").is_file()
    environment = document["stages"]["train"]["environment"]
    assert "SEEN" not in environment["removed"]  # a variable of the profile reaches the backend
    assert "TOY_ROOT" in environment["removed"]  # the module's own does not
    assert not {"HF_HUB_OFFLINE", "HF_HOME", "TMPDIR"} & set(environment["removed"])
    assert document["context"]["prepared"].startswith(str(place.scratch))
    assert not list((place.scratch / "tmp").iterdir())
    assert list(chain.glob("wandb/offline-run-*/*.wandb"))  # `ft runs sync` looks there
    fetched = {entry["id"]: entry for entry in document["stages"]["fetch"]["facts"]["fetched"]}
    assert set(fetched) == {"user/tiny", "user/words"}
    assert fetched["user/tiny"]["path"].startswith(str(place.scratch / "hf/hub"))
    assert not (Path(fetched["user/tiny"]["path"]) / "pytorch_model.bin").exists()
    assert document["context"]["sources"] == [fetched["user/words"]["path"]]
    assert document["stages"]["preprocess"]["facts"]["rows"] == 64  # of one split
    assert "✔ train" in place.ft("runs", "logs", chain).out
    assert "✔ export" in place.ft("runs", "logs", "-f", chain).out
    assert place.ft("runs", "logs", chain, "train").out
    assert place.ft("runs", "list", "--json").json[-1]["status"] == "done"


@pytest.mark.parametrize("backend", ["llamafactory", "axolotl"])
def test_two_nodes_train_together(
    place: SlurmPlace, recipe: Callable[..., Path], backend: str
) -> None:
    changes = {"backend": backend, "distributed.strategy": "ddp", "training.steps": 4}
    file = recipe(f"two-{backend}", **changes)
    here = ["--prepare-here"] if backend == BACKEND else []
    run = submitted(place, file, "--on", "toy", "--nodes", "2", *here)
    waited = place.ft("runs", "wait", run, "--timeout", "400")
    assert waited.code == 0, (waited.out, said(run), (run / "logs/train.log").read_text()[-3000:])
    facts = record(run)["stages"]["train"]["facts"]
    assert (facts["world_size"], facts["global_step"]) == (2, 4)
    asked = {job["name"]: job["nodes"] for job in status(place, run)["jobs"]}
    assert asked["train"] == "n[1-2]"
    assert list(asked) == (["train"] if here else ["prepare", "train"])


def started_again(place: SlurmPlace, run: Path, times: int) -> None:
    """Wait until training is in the queue again, and do not wait for what Slurm waits for there."""

    def restarts() -> bool:
        job = next(job for job in status(place, run)["jobs"] if job["name"] == "train")
        return bool(job["restarts"] == times)

    wait_for(restarts, 90)
    time.sleep(2)  # a start within the second in which its credential was revoked would fail
    with contextlib.suppress(subprocess.CalledProcessError):  # it runs already
        place.slurm("scontrol", "update", f"jobid={job_id(run, 'train')}", "starttime=now")


def test_warned_preempted_and_on_a_node_that_fails_it_ends_with_the_same_losses(
    place: SlurmPlace, recipe: Callable[..., Path], chain: Path
) -> None:
    rough = place.profile("rough", requeue=3)
    run = submitted(place, recipe("rough", **{"model.base": "user/tiny"}), "--on", rough)
    train = job_id(run, "train")
    wait_for(lambda: max(losses(run)) >= 20, 300)

    # the warning of a limit that is near, now: Slurm itself looks for them each half minute only
    place.slurm("scancel", "--signal=USR1", "--batch", train)
    started_again(place, run, 1)
    stopped = max(losses(run))
    assert 20 <= stopped < STEPS
    assert "stop_asked" in {event["event"] for event in events(run)}

    wait_for(lambda: max(losses(run)) >= stopped + 10, 120)
    place.slurm("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
                "--wrap=true")  # fmt: skip
    started_again(place, run, 2)
    preempted = max(losses(run))

    wait_for(lambda: max(losses(run)) >= preempted + 60, 200)
    node = {job["name"]: job["nodes"] for job in status(place, run)["jobs"]}["train"]
    crashed = place.node("crash", node)  # not without network namespaces
    try:
        if crashed:
            place.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
            assert status(place, run)["status"] == "queued"
            started_again(place, run, 3)
        waited = place.ft("runs", "wait", run, "--timeout", "300")
        assert waited.code == 0, (waited.out, said(run))
        train_job = next(job for job in status(place, run)["jobs"] if job["name"] == "train")
        assert train_job["restarts"] == (3 if crashed else 2)
        assert not crashed or train_job["nodes"] != node
    finally:
        if crashed:
            place.node("boot", node)  # it returns to service by itself
            state = ("sinfo", "-hN", "--partition=main", "-n", node, "-o%T")
            wait_for(lambda: place.slurm(*state).strip() == "idle", 60)
    assert record(run)["stages"]["train"]["facts"]["resumed_from"]
    assert losses(run) == pytest.approx(losses(chain), rel=1e-5)


def test_a_missing_module_is_named_and_what_is_left_can_be_cancelled(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    file = recipe("m", **{"training.steps": 100000, "output.merge": True})
    run = submitted(place, file, "--on", place.profile("nomodule", modules=["Nope/1.0"]))
    waited = place.ft("runs", "wait", run, "--timeout", "60", "--json")
    assert (waited.code, waited.json["status"]) == (9, "failed")
    assert "a module of the cluster profile cannot be loaded" in waited.json["reason"]
    assert "ft: the module Nope/1.0 cannot be loaded" in place.ft("runs", "logs", run).out
    assert place.ft("train", run).code == 2  # not on the login node
    again = place.ft("recipe", "run", "--resume", run, "--on", "toy")
    assert again.code == 0, again.err

    wait_for(lambda: max(losses(run)) >= 2, 300)
    assert place.ft("recipe", "run", "--resume", run).code == 2  # it runs
    done = place.ft("runs", "cancel", run, "--json")
    assert (done.code, done.json["status"]) == (0, "cancelled"), done.err
    left = {"prepare": "COMPLETED", "train": "CANCELLED", "finish": "CANCELLED"}
    wait_for(lambda: states(place, run) == left, 60)
    wait_for(lambda: not processes_of(run), 15)
    assert record(run)["status"] == "cancelled"
    assert place.ft("runs", "wait", run).code == 130
    nothing_is_queued(place)


def test_a_job_that_was_killed_is_not_running(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    run = submitted(place, recipe("killed", **{"data.sequence_length": 161}), "--on", "toy")
    wait_for(lambda: record(run)["stages"]["preprocess"].get("pid"), 60)
    os.kill(record(run)["pid"], signal.SIGKILL)
    waited = place.ft("runs", "wait", run, "--timeout", "60", "--json")
    assert (waited.code, waited.json["status"]) == (9, "failed")
    assert "signal 9" in waited.json["reason"]
    assert record(run)["stages"]["preprocess"]["status"] == "failed"
    wait_for(lambda: states(place, run)["train"] == "CANCELLED", 60)  # when Slurm looks for it


def test_labels_that_forbid_training_stop_the_chain(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    rows = place.work / "long.jsonl"
    row = {"instruction": "word " * 4000, "input": "", "output": "yes " * 30}
    rows.write_text((json.dumps(row) + "\n") * 8)
    sources = [{"path": str(rows), "format": "alpaca"}]
    file = recipe("unlabelled", **{"data.sequence_length": 16, "data.overlong": "truncate",
                                   "data.sources": sources})  # fmt: skip
    run = submitted(place, file, "--on", "toy")
    waited = place.ft("runs", "wait", run, "--timeout", "200", "--json")
    assert (waited.code, waited.json["status"]) == (7, "failed"), said(run)
    assert "[FT50" in waited.json["reason"]
    left = {"prepare": "FAILED", "train": "CANCELLED"}
    wait_for(lambda: states(place, run) == left, 60)


def test_an_unknown_partition_is_refused(place: SlurmPlace, recipe: Callable[..., Path]) -> None:
    profile = place.profile("nopartition", one_task={"partition": "main"}, partition="gpuu")
    done = place.ft("recipe", "run", recipe("p"), "--on", profile)
    assert done.code == 9
    assert "Slurm refuses train.sh" in done.err
    assert "partition" in done.err
    assert "Traceback" not in done.err
    assert record(place.run_folder())["status"] == "failed"
    nothing_is_queued(place)  # the first job is not left behind
