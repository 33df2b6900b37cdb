"""Runs as jobs of a real Slurm with two nodes, with real modules and a real backend."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import write_recipe
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
def chain(place: SlurmPlace) -> Path:
    """A whole run, made once."""
    run = submitted(place, "mistral-qlora", "--smoke", "--backend", BACKEND, "--on", "toy")
    waited = place.ft("runs", "wait", run, "--timeout", "500", "--json")
    assert waited.code == 0, (waited.err, waited.out, said(run))
    return run


@pytest.fixture(scope="session")
def recipe(place: SlurmPlace, chain: Path) -> Callable[..., Path]:
    """A recipe on the tiny model that the chain has made."""
    rows = place.work / "rows.jsonl"
    words = ["red", "blue", "green", "white"]
    rows.write_text("".join(
        json.dumps({"instruction": f"Say {words[i % 4]} {i}.", "input": "",
                    "output": f"{words[i % 4]} it is"}) + "\n" for i in range(64)
    ))  # fmt: skip

    def write(name: str, **changes: Any) -> Path:
        return write_recipe(
            place.work / f"{name}.yaml",
            **{"name": name, "backend": BACKEND, "model.base": record(chain)["context"]["base"],
               "model.dtype": "float32", "data.sequence_length": 160,
               "data.sources": [{"path": str(rows), "format": "alpaca"}],
               "training.epochs": None, "training.steps": STEPS, "training.log_every": 1,
               "training.micro_batch_size": 2, "training.save": 5000, **changes},
        )  # fmt: skip

    return write


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


def test_chain_of_jobs_makes_a_model(place: SlurmPlace, chain: Path) -> None:
    document = record(chain)
    assert document["status"] == "done"
    assert {s["status"] for s in document["stages"].values()} == {"done"}
    assert states(place, chain) == dict.fromkeys(("prepare", "train", "finish"), "COMPLETED")
    assert (chain / "export" / "model.safetensors").is_file()
    environment = document["stages"]["train"]["environment"]
    assert "SEEN" not in environment["removed"]  # a variable of the profile reaches the backend
    assert "TOY_ROOT" in environment["removed"]  # the module's own does not
    assert not {"HF_HUB_OFFLINE", "HF_HOME", "TMPDIR"} & set(environment["removed"])
    assert document["context"]["prepared"].startswith(str(place.scratch))
    assert not list((place.scratch / "tmp").iterdir())
    assert "✔ train" in place.ft("runs", "logs", chain).out
    assert "✔ export" in place.ft("runs", "logs", "-f", chain).out
    assert place.ft("runs", "logs", chain, "train").out
    assert place.ft("runs", "list", "--json").json[0]["status"] == "done"


def test_two_nodes_train_together(place: SlurmPlace, recipe: Callable[..., Path]) -> None:
    file = recipe("two", **{"distributed.strategy": "ddp", "training.steps": 8,
                            "output.merge": False, "output.export": False})  # fmt: skip
    run = submitted(place, file, "--on", "toy", "--nodes", "2", "--prepare-here")
    waited = place.ft("runs", "wait", run, "--timeout", "400")
    assert waited.code == 0, (waited.out, said(run), (run / "logs/train.log").read_text()[-3000:])
    facts = record(run)["stages"]["train"]["facts"]
    assert (facts["world_size"], facts["global_step"]) == (2, 8)
    asked = {job["name"]: job["nodes"] for job in status(place, run)["jobs"]}
    assert asked["train"] == "n[1-2]"
    assert list(states(place, run)) == ["train"]


def test_the_other_backend_on_two_nodes_with_merge_and_export(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    file = recipe("axolotl", **{"backend": "axolotl", "distributed.strategy": "ddp",
                                "training.steps": 4})  # fmt: skip
    run = submitted(place, file, "--on", "toy", "--nodes", "2")
    waited = place.ft("runs", "wait", run, "--timeout", "500")
    assert waited.code == 0, (waited.out, said(run))
    facts = record(run)["stages"]["train"]["facts"]
    assert (facts["world_size"], facts["global_step"]) == (2, 4)
    assert (run / "export" / "model.safetensors").is_file()


def test_time_limit_requeues_and_resumes_to_the_same_losses(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    bare = {"output.merge": False, "output.export": False}
    whole = place.ft("recipe", "run", recipe("whole", **bare), "--json")
    assert whole.code == 0, whole.err
    run = submitted(place, recipe("again", **bare), "--on", "toy")
    train = job_id(run, "train")
    wait_for(lambda: max(losses(run)) >= 20, 300)
    # Slurm's own warning comes up to a minute early; this is the same signal to the same process
    place.slurm("scancel", "--signal=USR1", "--batch", train)
    wait_for(lambda: status(place, run)["status"] == "queued", 60)
    stopped = max(losses(run))
    assert 20 <= stopped < STEPS
    with contextlib.suppress(
        subprocess.CalledProcessError
    ):  # else it waits for the credential of its first start
        place.slurm("scontrol", "update", f"jobid={train}", "starttime=now")
    waited = place.ft("runs", "wait", run, "--timeout", "300")
    assert waited.code == 0, (waited.out, said(run))
    facts = record(run)["stages"]["train"]["facts"]
    assert facts["resumed_from"].endswith(f"checkpoint-{stopped}")
    restarts = {job["name"]: job["restarts"] for job in status(place, run)["jobs"]}
    assert restarts["train"] == 1
    expected = losses(Path(whole.json["path"]))
    assert losses(run) == pytest.approx(expected, rel=1e-5)
    assert "stop_asked" in {event["event"] for event in events(run)}


def test_a_failed_node_requeues_and_resumes_elsewhere(
    place: SlurmPlace, recipe: Callable[..., Path]
) -> None:
    file = recipe("node", **{"training.save": 100, "output.merge": False, "output.export": False})
    run = submitted(place, file, "--on", "toy")
    wait_for(lambda: max(losses(run)) >= 150, 300)
    node = {job["name"]: job["nodes"] for job in status(place, run)["jobs"]}["train"]
    if not place.node("crash", node):
        pytest.skip("nodes without a network namespace cannot crash")
    try:
        place.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        assert status(place, run)["status"] == "queued"
        waited = place.ft("runs", "wait", run, "--timeout", "200")
        assert waited.code == 0, (waited.out, said(run))
        jobs = {job["name"]: job for job in status(place, run)["jobs"]}
        assert jobs["train"]["nodes"] != node
        assert jobs["train"]["restarts"] == 1
        facts = record(run)["stages"]["train"]["facts"]
        assert int(facts["resumed_from"].rpartition("-")[2]) >= 100
    finally:
        place.node("boot", node)  # it returns to service by itself
        wait_for(lambda: place.slurm("sinfo", "-hN", "-n", node, "-o%T").strip() == "idle", 60)


def test_cancel_ends_everything(place: SlurmPlace, recipe: Callable[..., Path]) -> None:
    run = submitted(place, recipe("cancelled", **{"training.steps": 100000}), "--on", "toy")
    wait_for(lambda: max(losses(run)) >= 2, 300)
    assert place.ft("recipe", "run", "--resume", run).code == 2
    done = place.ft("runs", "cancel", run, "--json")
    assert (done.code, done.json["status"]) == (0, "cancelled"), done.err
    assert states(place, run) == {
        "prepare": "COMPLETED", "train": "CANCELLED", "finish": "CANCELLED",
    }  # fmt: skip
    wait_for(lambda: not processes_of(run), 15)
    assert record(run)["status"] == "cancelled"
    assert place.ft("runs", "wait", run).code == 130
    assert place.slurm("squeue", "--noheader").strip() == ""


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
    assert states(place, run)["train"] == "CANCELLED"


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
    assert states(place, run) == {
        "prepare": "FAILED", "train": "CANCELLED", "finish": "CANCELLED",
    }  # fmt: skip


def test_a_missing_module_is_named(place: SlurmPlace, recipe: Callable[..., Path]) -> None:
    file = recipe("m", **{"training.steps": 3, "output.merge": False, "output.export": False})
    run = submitted(place, file, "--on", place.profile("nomodule", modules=["Nope/1.0"]))
    waited = place.ft("runs", "wait", run, "--timeout", "60", "--json")
    assert (waited.code, waited.json["status"]) == (9, "failed")
    assert "a module of the cluster profile cannot be loaded" in waited.json["reason"]
    assert "ft: the module Nope/1.0 cannot be loaded" in place.ft("runs", "logs", run).out
    assert place.ft("train", run).code == 2  # not on the login node
    again = place.ft("recipe", "run", "--resume", run, "--on", "toy")
    assert again.code == 0, again.err
    waited = place.ft("runs", "wait", run, "--timeout", "200")
    assert waited.code == 0, (waited.out, said(run))


def test_an_unknown_partition_is_refused(place: SlurmPlace, recipe: Callable[..., Path]) -> None:
    profile = place.profile("nopartition", one_task={"partition": "main"}, partition="gpuu")
    done = place.ft("recipe", "run", recipe("p"), "--on", profile)
    assert done.code == 9
    assert "Slurm refuses train.sh" in done.err
    assert "partition" in done.err
    assert "Traceback" not in done.err
    assert record(place.run_folder())["status"] == "failed"
    assert place.slurm("squeue", "--noheader").strip() == ""  # the first job is not left behind
