"""A DeepSpeed file of one's own: what DeepSpeed, accelerate or the trainer cannot use is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.deepspeed_file import deepspeed_file
from orchestrator.distributed import deepspeed, own_file, own_values
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from tests.helpers import ft, loaded, write_recipe

OWN: dict[str, Any] = {"distributed.strategy": "deepspeed", "distributed.deepspeed_file": "z.json"}
COMPLETE = deepspeed.build(3).as_dict()
REMOVED = object()


def recipe(**changes: Any) -> Recipe:
    return loaded(**changes).recipe


def changed(**changes: Any) -> dict[str, Any]:
    """A whole file with other values; `__` stands for the dot."""
    document: dict[str, Any] = json.loads(json.dumps(COMPLETE))
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = document
        for name in parents:
            part = part.setdefault(name, {})
        if value is REMOVED:
            del part[last]
        else:
            part[last] = value
    return document


def found(folder: Path, document: Any, **changes: Any) -> list[Finding]:
    (folder / "z.json").write_text(json.dumps(document, indent=1))
    return list(deepspeed_file(recipe(**OWN, **changes), folder))


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"zero_optimization__stage": "3"}, "takes 0, 1, 2, 3, not \"3\"", "write 3 without quotes"),
    ({"zero_optimization__stage": True}, "takes 0, 1, 2, 3, not true", ""),
    ({"zero_optimization__stage": 4}, "takes 0, 1, 2, 3, not 4", ""),
    ({"zero_optimization__stage": "auto"}, "filled in by nobody", ""),
    ({"zero_optimization__stage": REMOVED}, "the trainer needs it", ""),
    ({"zero_optimization": REMOVED}, "zero_optimization.stage: the trainer needs it", ""),
    ({"zero_optimization": True}, "takes a section in {}, not true", ""),
    ({"zero_optimization__reduce_bucket_size": "5e8"}, "not \"5e8\"", "write 5e8 without quotes"),
    ({"zero_optimization__reduce_bucket_size": 5.5}, "takes a whole number, not 5.5", ""),
    ({"zero_optimization__reduce_bucket_size": float("nan")}, "not NaN", ""),
    ({"zero_optimization__sub_group_size": "auto"}, "filled in by nobody", "give a value"),
    ({"zero_optimization__overlap_comm": "auto"}, "filled in by nobody", "give a value"),
    ({"fp16__loss_scale": "auto"}, "filled in by nobody", ""),
    ({"wall_clock_breakdown": "auto"}, "filled in by nobody", ""),
    ({"zero_optimization__contiguous_gradients": "true"}, "not \"true\"", "write true without"),
    ({"zero_optimization___comment": "mine"}, "does not know it", "remove it"),
    ({"fp16__loss_scale_widnow": 3}, "does not know it", "is it loss_scale_window?"),
    ({"ZERO_OPTIMIZATION": {}}, "does not know it", "is it zero_optimization?"),
    ({"zero_optimization__offload_optimizer": None}, "not null", "remove it"),
    ({"zero_optimization__offload_optimizer": "cpu"}, "takes a section in {}", ""),
    ({"zero_optimization__offload_param__device": "CPU"}, "not \"CPU\"", 'write "cpu"'),
    ({"zero_optimization__offload_param__device": "nvme"}, "a disk needs nvme_path", ""),
    ({"zero_optimization__offload_optimizer": {"device": "nvme", "nvme_path": "/d"},
      "zero_optimization__stage": 2}, "only stage 3 can use a disk", 'write "cpu"'),
    ({"optimizer": None}, "takes a section in {}, not null", "remove it"),
    ({"bf16": True}, "takes a section in {}, not true", ""),
    ({"zero_force_ds_cpu_optimizer": "false"}, "not \"false\"", "write false without quotes"),
    ({"communication_data_type": "bfloat16"}, "takes \"bf16\", \"fp16\", \"fp32\"", ""),
    ({"tensor_parallel": {"autotp_size": 2}}, "among 2 GPUs", "distributed.tensor_parallel=2"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said", "fix"), MISTAKES)
def test_what_cannot_be_used_is_an_error(
    tmp_path: Path, changes: dict[str, Any], said: str, fix: str
) -> None:
    errors = [one for one in found(tmp_path, changed(**changes)) if one.level == "error"]
    assert len(errors) == 1
    assert said in errors[0].message
    assert fix in errors[0].fix


RIGHT: list[dict[str, Any]] = [
    {},
    {"_comment": "mine", "//": "too", "zero_optimization__reduce_bucket_size": 5e8},
    {"zero_optimization__stage": 0, "steps_per_print": float("inf"), "aio": None},
    {"zero_optimization__overlap_comm": None, "zero_optimization__mics_shard_size": -1},
    {"zero_optimization__offload_param": {"device": "none", "nvme_path": None}},
    {"zero_optimization__leaf_module": {"classes": ["A"]}, "compile": {"disable": False}},
    {"fp16__loss_scale": 0, "fp16__initial_scale_power": 16, "wall_clock_breakdown": False},
    {"zero_optimization__offload_optimizer": {"device": "cpu", "ratio": 0.5},
     "zero_force_ds_cpu_optimizer": False},
]  # fmt: skip


@pytest.mark.parametrize("changes", RIGHT)
def test_what_deepspeed_takes_is_not_told(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert found(tmp_path, changed(**changes)) == []


def test_weights_that_stage_two_does_not_move(tmp_path: Path) -> None:
    moved = {"zero_optimization__offload_param": {"device": "cpu"}, "zero_optimization__stage": 2}
    assert [one.level for one in found(tmp_path, changed(**moved))] == ["warning"]


def test_a_mistake_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "z.json").write_text(
        '{"a{": "b: [",\n "zero_optimization": {\n\n  "stage": 3, "offload_param":\n'
        '  {"nvme_path": "x",\n   "device": "gpu"}},\n "c": [{"stage": 1}]}'
    )
    lines = own_values.lines((tmp_path / "z.json").read_text())
    assert lines["zero_optimization.stage"] == 4
    assert lines["zero_optimization.offload_param.device"] == 6
    (wrong,) = [one for one in deepspeed_file(recipe(**OWN), tmp_path) if "device" in one.message]
    assert str(wrong.place) == f"{tmp_path / 'z.json'}:6"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('// mine\n{"zero_optimization": {}}', "z.json:1:1: "),
        ('{"zero_optimization": {},}', "no comma before }"),
        ("zero_optimization:\n  stage: 3\n", "plain JSON"),
        ("", "z.json:1:1: "),
        ("\ufeff{}", "no byte order mark"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
    ],
    ids=["comment", "comma", "yaml", "empty", "mark", "deep"],
)
def test_what_is_no_json_says_what_is_expected(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "z.json").write_text(text)
    (wrong,) = deepspeed_file(recipe(**OWN), tmp_path)
    assert said in str(wrong)


@pytest.mark.parametrize("document", [changed(zero_optimization__stage="3"), [1]])
def test_no_plan_is_made_of_it(tmp_path: Path, document: Any) -> None:
    (tmp_path / "z.json").write_text(json.dumps(document, indent=1))
    file = write_recipe(tmp_path / "r.yaml", **OWN, **{"model.base": "meta-llama/Meta-Llama-3-8B"})
    done = ft("plan", "memory", file, "--gpus", "4xA100", "--offline", cwd=tmp_path)
    assert done.code == 2
    assert "z.json" in done.err


def keys(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made, told = own_file.patched(recipe(**OWN, **changes), document, "bfloat16")
    assert own_file.patched(recipe(**OWN, **changes), made, "bfloat16") == (made, ())
    return {change.key: change.after for change in told}


def test_the_learning_rate_is_never_deepspeeds_default() -> None:
    adam = {"optimizer.params.lr", "optimizer.params.betas", "optimizer.params.eps",
            "optimizer.params.weight_decay"}  # fmt: skip
    for block in ({"type": "AdamW"}, {"type": "adam", "params": {}}):
        assert keys({**COMPLETE, "optimizer": block}) == dict.fromkeys(adam, "auto")
    lion = {**COMPLETE, "optimizer": {"type": "Lion", "params": {"lr": "auto"}}}
    assert keys(lion, **{"training.optimizer": "lion_32bit"}).keys() == {
        "optimizer.params.betas", "optimizer.params.weight_decay"
    }  # fmt: skip
    schedule = {**COMPLETE, "scheduler": {"type": "WarmupDecayLR"}}
    assert keys(schedule, **{"training.scheduler": "linear"}) == {
        "scheduler.params.warmup_max_lr": "auto",
        "scheduler.params.warmup_num_steps": "auto",
        "scheduler.params.total_num_steps": "auto",
        "scheduler.params.warmup_type": "linear",
    }


def test_what_only_the_trainers_optimizer_has() -> None:
    document = {**COMPLETE, "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}
    changes = {"adapter.type": "lora", "adapter.loraplus_ratio": 16.0}
    assert keys(document, **changes) == {"optimizer": None}


def test_weights_are_gathered_also_where_auto_or_elasticity_say_otherwise() -> None:
    gather = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    left = changed(zero_optimization__stage3_gather_16bit_weights_on_model_save="auto")
    assert keys(left) == {gather: True}
    assert keys({**COMPLETE, "elasticity": {"enabled": True}}) == {"elasticity": None}


def test_a_configuration_in_the_native_block(tmp_path: Path) -> None:
    def told(document: dict[str, Any]) -> list[Finding]:
        asked = recipe(backend="axolotl", **{"native.axolotl": {"deepspeed": document}})
        return list(deepspeed_file(asked, tmp_path))

    (wrong,) = told(changed(zero_optimization__stage="3"))
    assert (wrong.level, wrong.field) == ("error", "native.axolotl.deepspeed")
    assert told(COMPLETE) == []
