"""Training again after an out-of-memory error: the record, the checkpoints, the message at the end.

The backend is a stand-in that plays recorded messages of GPUs, of which there are none here; a real
backend that the kernel kills is in `tests/smoke/test_llamafactory.py`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import yaml_out
from orchestrator.backends.base import Target
from orchestrator.cli.common import reopen
from orchestrator.environments.environment import Environment
from orchestrator.errors import BackendError, LaunchError, RunInterrupted
from orchestrator.files import write_atomic, write_json
from orchestrator.oom.shortage import OutOfMemory
from orchestrator.pipeline import Pipeline
from orchestrator.plan import Context, build
from orchestrator.recipe.load import load
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record
from tests.helpers import Outcome, ft, loaded

OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 39.39 GiB of which 1.00 GiB is free."
)

BACKEND = '''#!{python}
"""Trains if its configuration is what `enough` says, else ends as a GPU without memory does."""
import json, pathlib, sys
if "-I" in sys.argv:  # ft asks which release this is
    print(json.dumps({{"axolotl": "0.19.0", "torch": "2.13.0"}}))
    sys.exit()
import yaml
request = json.loads(pathlib.Path(sys.argv[-1]).read_text())
config = yaml.safe_load(pathlib.Path(request["config"]).read_text())
output = pathlib.Path(config["output_dir"])
def checkpoint(folder, state):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{{}}")
    header = json.dumps({{f"x.lora_{{m}}.weight": {{"dtype": "F32", "shape": [1, 8],
        "data_offsets": [32 * i, 32 * i + 32]}} for i, m in enumerate("AB")}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(64))
    (folder / "trainer_state.json").write_text(json.dumps(state))
enough = json.loads((pathlib.Path(__file__).parent / "enough.json").read_text())
if not all(config.get(key) == value for key, value in enough["config"].items()):
    checkpoint(output / "checkpoint-2", {{"global_step": 2}})
    print({oom!r}, file=sys.stderr)
    sys.exit(1)
if enough.get("says"):
    sys.exit(enough["says"])
checkpoint(output, {{}})
pathlib.Path(request["result"]).write_text(json.dumps(
    {{"global_step": 4, "max_steps": 4, "world_size": {processes}, "resumed": request["resume"]}}))
'''

Start = Callable[..., Pipeline]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A run that is prepared, before training; `enough` is what the stand-in can hold."""
    prefix, prepared = tmp_path / "env", tmp_path / "prepared"
    python = prefix / "bin" / "python"
    monkeypatch.setenv("FT_AXOLOTL_PREFIX", str(prefix))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # whatever GPUs are here are not looked at

    def make(enough: dict[str, Any], *, processes: int = 1, **changes: Any) -> Pipeline:
        program = BACKEND.format(python=sys.executable, oom=OOM, processes=processes)
        write_atomic(python, program)
        python.chmod(0o755)
        write_json(python.parent / "enough.json", enough)
        layout = RunLayout(tmp_path / "run")
        for file in (prepared / "train" / "state.json", prepared / "tokenizer" / "tokenizer.json"):
            write_json(file, {})
        facts = {"dataset": {"train": str(prepared / "train")},
                 "tokenizer": str(prepared / "tokenizer")}  # fmt: skip
        write_json(prepared / "ft-prepared.json", facts)
        for stage in ("fetch", "preprocess", "inspect"):
            write_json(layout.marker(stage), {"facts": {}})
        context = Context(
            root=str(layout.root), python=str(python), probe="stage.py", prepared=str(prepared),
            target=Target("cuda", True, processes), sources=("/data/a.jsonl",),
        )  # fmt: skip
        values = {"adapter.rank": 8, "output.merge": False, "output.export": False,
                  "training.on_oom": "retry"}  # fmt: skip
        recipe = loaded(**{**values, **changes}).recipe
        plan = build(recipe, context)
        for rendered in plan.files:
            write_atomic(layout.rendered / rendered.name, rendered.text)
        write_atomic(layout.recipe, yaml_out.dump(recipe.model_dump(mode="json")))
        record = Record(layout, {})
        record.update(context=context.as_dict(), stages={"train": {"status": "waiting"}})
        environment = Environment("axolotl", prefix, python, "prefix", "0.19.0")
        return Pipeline(plan, record, environment)

    return make


def shown(pipeline: Pipeline) -> Outcome:
    """`ft runs show` of the run."""
    return ft("runs", "show", pipeline.record.layout.root)


def test_a_smaller_batch_goes_on_from_the_checkpoint(start: Start) -> None:
    pipeline = start({"config": {"micro_batch_size": 1}}, **{"training.micro_batch_size": 4})
    layout = pipeline.record.layout
    pipeline.run()
    document = json.loads(layout.record.read_text())
    first, second, third = document["attempts"]
    assert first["kind"] == "gpu"
    assert first["amounts"] == {
        "tried": 2 << 30, "total": int(39.39 * 2**30), "free": 1 << 30, "others": None,
    }  # fmt: skip
    assert first["predicted"] > 4 << 30
    assert (first["change"], first["resumed_from"]) == ([], None)
    assert second["change"] == [
        "training.micro_batch_size=2", "training.gradient_accumulation=2",
    ]  # fmt: skip
    assert third["change"][0] == "training.micro_batch_size=1"
    assert third["reason"] is None
    checkpoint = str(layout.adapter / "checkpoint-2")
    assert [second["resumed_from"], third["resumed_from"]] == [checkpoint, checkpoint]
    assert document["stages"]["train"]["facts"]["resumed"] == checkpoint
    assert load(layout.recipe).recipe.training.gradient_accumulation == 4
    for number, micro in ((1, 4), (2, 2)):
        kept = yaml.safe_load((layout.attempt(number) / "rendered" / "train.yaml").read_text())
        assert kept["micro_batch_size"] == micro
        assert (
            load(layout.attempt(number) / "recipe.yaml").recipe.training.micro_batch_size == micro
        )
    assert "attempt" in shown(pipeline).out
    assert "from checkpoint-2" in shown(pipeline).out


def test_checkpoints_that_cannot_be_read_are_kept_aside_and_it_is_said(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = start({"config": {}}, processes=2, **{"distributed.strategy": "ddp"})
    layout = pipeline.record.layout
    enough = {"deepspeed": str(layout.rendered / "deepspeed.json")}
    write_json(pipeline.environment.bin / "enough.json", {"config": enough})
    pipeline.run()
    first, second = pipeline.record.document["attempts"]
    assert second["change"][:2] == ["distributed.strategy=deepspeed", "distributed.zero_stage=2"]
    assert (first["resumed_from"], second["resumed_from"]) == (None, None)
    aside = layout.attempt(1) / "checkpoints"
    assert (aside / "checkpoint-2" / "trainer_state.json").is_file()
    assert not list(layout.adapter.glob("checkpoint-*"))
    assert "from the beginning" in second["notes"][-1]
    assert str(aside) in second["notes"][-1]
    assert json.loads((layout.rendered / "deepspeed.json").read_text())["zero_optimization"]
    told = " ".join(capsys.readouterr().err.split())
    assert "again with distributed.strategy=deepspeed distributed.zero_stage=2" in told
    assert "from the beginning" in told


def test_steps_that_the_memory_plan_rules_out_cost_no_start(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 7B model in bfloat16 is 14.5 GB: four GPUs of 16 GB hold it in parts only."""
    program = tmp_path / "bin" / "nvidia-smi"
    rows = "".join(f"{n}, GPU-{n}, Tesla T4, 15360, 7.5\n" for n in range(4))
    write_atomic(program, f"#!/bin/sh\ncat <<END\n{rows}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    pipeline = start(
        {"config": {"micro_batch_size": 1}}, processes=4,
        **{"training.micro_batch_size": 4, "distributed.strategy": "ddp"},
    )  # fmt: skip
    pipeline.run()
    _, second = pipeline.record.document["attempts"]
    assert second["change"] == [
        "training.micro_batch_size=1", "training.gradient_accumulation=4",
        "distributed.strategy=deepspeed", "distributed.zero_stage=3", "training.reentrant=true",
    ]  # fmt: skip
    assert "the memory plan" in second["why"]


def test_at_the_top_one_message_lists_what_was_tried(start: Start) -> None:
    pipeline = start({"config": {"never": 1}}, **{"training.micro_batch_size": 2})
    with pytest.raises(OutOfMemory) as caught:
        pipeline.run()
    error, document = caught.value, pipeline.record.document
    assert "2.0 GiB more were asked for, 1.0 GiB of 39.4 GiB were free" in error.message
    assert "the memory plan says" in error.message
    assert "also after 3 changes: training.micro_batch_size=1 training.grad" in error.message
    assert error.message.endswith("distributed.offload=all training.reentrant=true")
    assert "sequence_length=1024" in error.hint
    assert "on-oom" not in error.hint
    assert (document["status"], document["exit_code"]) == ("failed", 5)
    assert [attempt["kind"] for attempt in document["attempts"]] == ["gpu"] * 4


def test_by_default_it_stops_and_a_resume_may_climb(start: Start) -> None:
    pipeline = start(
        {"config": {"micro_batch_size": 1}},
        **{"training.micro_batch_size": 2, "training.on_oom": "stop"},
    )
    root = pipeline.record.layout.root
    with pytest.raises(OutOfMemory) as caught:
        pipeline.run()
    assert "--set training.micro_batch_size=1" in caught.value.hint
    assert f"ft recipe run --resume {root} --on-oom retry" in caught.value.hint
    assert len(pipeline.record.document["attempts"]) == 1
    assert ft("recipe", "run", "--resume", root, "--on-oom", "often").code == 2
    done = ft("recipe", "run", "--resume", root, "--on-oom", "retry", "--json")
    assert done.code == 0, done.err
    assert [attempt["change"] for attempt in done.json["attempts"]] == [
        [], [], ["training.micro_batch_size=1", "training.gradient_accumulation=2"],
    ]  # fmt: skip


def test_what_cannot_be_kept_is_not_changed(start: Start) -> None:
    pipeline = start({"config": {"micro_batch_size": 1}}, **{"training.micro_batch_size": 2})
    layout = pipeline.record.layout
    (layout.root / "attempts").write_text("in the way")
    with pytest.raises(LaunchError, match="cannot keep the files of an attempt"):
        pipeline.run()
    assert load(layout.recipe).recipe.training.micro_batch_size == 2
    assert (layout.adapter / "checkpoint-2").is_dir()
    assert pipeline.record.document["status"] == "failed"


def test_an_error_of_another_kind_ends_the_climb(start: Start) -> None:
    pipeline = start(
        {"config": {"micro_batch_size": 1}, "says": "ValueError: another thing is wrong"},
        **{"training.micro_batch_size": 4},
    )
    with pytest.raises(BackendError) as caught:
        pipeline.run()
    assert not isinstance(caught.value, OutOfMemory)
    assert "another thing is wrong" in caught.value.detail
    assert "seconds" not in pipeline.record.document["attempts"][-1]
    again = reopen(pipeline.record.layout.root)
    assert again.plan.recipe.training.micro_batch_size == 1
    assert shown(pipeline).code == 0


@pytest.mark.parametrize(("write", "changed"), [(1, False), (2, True)])
def test_killed_while_a_step_is_taken(
    start: Start, monkeypatch: pytest.MonkeyPatch, write: int, changed: bool
) -> None:
    """Before, or after, the recipe was written, and before it was noted: the record is true."""
    pipeline = start({"config": {"micro_batch_size": 1}}, **{"training.micro_batch_size": 2})
    writes = iter(range(1, 9))

    def killed(path: Path, text: str) -> None:
        if next(writes) == write:
            raise KeyboardInterrupt
        write_atomic(path, text)

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.oom.attempts.write_atomic", killed)
        with pytest.raises(RunInterrupted):
            pipeline.run()
    reopen(pipeline.record.layout.root).run()
    found = json.loads(pipeline.record.layout.record.read_text())["attempts"]
    step = ["training.micro_batch_size=1", "training.gradient_accumulation=2"]
    changes = [attempt["change"] for attempt in found]
    assert changes == ([[], step] if changed else [[], [], step])
    assert found[-1]["reason"] is None
