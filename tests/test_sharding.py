"""The batch that stays what the recipe says, and DeepSpeed configurations: made, and one's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.base import Paths, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check
from orchestrator.checks.deepspeed_file import deepspeed_file
from orchestrator.distributed import batch, checkpointing, deepspeed, own_file, own_values
from orchestrator.recipe.models import Recipe
from orchestrator.settling import settle
from orchestrator.standalone import standalone
from tests.helpers import ROOT, ft, loaded, write_recipe

ZERO3: dict[str, Any] = {"distributed.strategy": "deepspeed", "distributed.zero_stage": 3}
OWN: dict[str, Any] = {"distributed.strategy": "deepspeed", "distributed.deepspeed_file": "z.json"}
CPU = Target("cpu", bf16=False)


def recipe(**changes: Any) -> Recipe:
    return loaded(**changes).recipe


@pytest.mark.parametrize(
    ("processes", "changes", "accumulation"),
    [
        (1, {}, 32),
        (4, {}, 8),
        (8, {"training.micro_batch_size": 8}, 1),
        (8, {"distributed.context_parallel": 4}, 16),
        (8, {"training.gradient_accumulation": 4}, 4),
    ],
)
def test_the_effective_batch_holds_for_any_number_of_processes(
    processes: int, changes: dict[str, Any], accumulation: int
) -> None:
    sizes = {"training.effective_batch": 64, "training.micro_batch_size": 2}
    found, wrong = batch.settled(recipe(**{**sizes, **changes}), processes)
    assert wrong == []
    assert found.training.gradient_accumulation == accumulation
    assert batch.of(found, processes).effective == 64


@given(st.integers(1, 600), st.integers(1, 40), st.integers(1, 40))
def test_it_is_exact_or_refused_with_a_fix_that_works(wanted: int, micro: int, many: int) -> None:
    sizes = {"training.effective_batch": wanted, "training.micro_batch_size": micro}
    found, wrong = batch.settled(recipe(**sizes), many)
    if not wrong:
        assert batch.of(found, many).effective == wanted
        return
    field, value = wrong[0].fix.split(",")[0].removeprefix("--set ").split("=")
    _, still = batch.settled(recipe(**{**sizes, field: int(value)}), many)
    assert still == []


def test_processes_that_share_a_layer_come_in_whole_groups() -> None:
    shared = recipe(**{"distributed.tensor_parallel": 3, "distributed.strategy": "fsdp"})
    _, wrong = batch.settled(shared, 8)
    assert "8 processes cannot be split into groups of 3" in wrong[0].message
    assert batch.settled(shared, 6)[1] == batch.settled(shared, 1)[1] == []


def test_two_answers_for_one_batch_are_refused() -> None:
    both = recipe(**{"training.effective_batch": 64, "training.gradient_accumulation": 3})
    _, wrong = batch.settled(both, 4)
    assert "it is 12 rows per step = 1 per forward pass x 3 accumulated" in wrong[0].message


def test_files_for_the_recipes_own_gpus_have_the_accumulation() -> None:
    spread = {"training.effective_batch": 64, "distributed.strategy": "ddp", "distributed.gpus": 4}
    for backend, key in (("axolotl", "gradient_accumulation_steps"),
                         ("llamafactory", "gradient_accumulation_steps")):  # fmt: skip
        files, _ = standalone(loaded(**spread, backend=backend))
        assert yaml.safe_load(files.text("train.yaml"))[key] == 16


def test_the_plan_prints_the_arithmetic(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", **{
        "training.effective_batch": 64, "training.micro_batch_size": 2,
        "distributed.strategy": "ddp", "distributed.gpus": 4,
    })  # fmt: skip
    done = ft("recipe", "plan", file, "--offline", cwd=tmp_path)
    assert (
        "batch: 64 rows per step = 2 per forward pass x 8 accumulated x 4 processes" in done.out
    ), done.err
    document = json.loads(ft("recipe", "plan", file, "--offline", "--json", cwd=tmp_path).out)
    assert document["batch"]["effective"] == 64
    bad = ft("recipe", "plan", file, "--set", "distributed.gpus=3", cwd=tmp_path)
    assert bad.code == 2
    assert "r.yaml:" in bad.err
    assert "[FT236]" in bad.err


def test_settling_says_all_at_once() -> None:
    found = settle(loaded(**{"training.effective_batch": 5, "distributed.nodes": 2,
                             "distributed.strategy": "ddp", "training.micro_batch_size": 2}),
                   None, offline=True)  # fmt: skip
    assert {finding.code for finding in found.findings} >= {"FT236", "FT240", "FT242"}


def test_a_run_renders_the_stage_of_its_recipe() -> None:
    made = deepspeed.for_recipe(recipe(**ZERO3), CPU)
    zero = made["zero_optimization"]
    assert (zero["stage"], zero["stage3_gather_16bit_weights_on_model_save"]) == (3, True)
    assert made["bf16"] == made["fp16"] == {"enabled": False}
    assert not {"optimizer", "scheduler", "aio"} & made.keys()


def test_offloading_to_a_disk_and_deepspeeds_adam() -> None:
    more = {"distributed.offload": "all", "distributed.nvme": "/nvme", "distributed.cpu_adam": True}
    made = deepspeed.for_recipe(recipe(**ZERO3, **more), Target())
    zero = made["zero_optimization"]
    assert zero["offload_optimizer"] == {
        "device": "nvme", "pin_memory": True, "nvme_path": "/nvme"
    }  # fmt: skip
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert made["zero_force_ds_cpu_optimizer"] is True
    assert made["aio"]["block_size"] == 1 << 20


@pytest.mark.parametrize("name", list(deepspeed.SHIPPED))
def test_shipped_files_need_no_change(name: str) -> None:
    document = own_file.read(ROOT / "deepspeed_configs" / f"{name}.json")
    assert list(own_values.mistakes(document)) == []
    assert own_file.patched(recipe(**OWN), document, "bfloat16") == (document, ())


COMPLETE = deepspeed.build(3).as_dict()
ADAM = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
WARMUP = {"warmup_max_lr": "auto", "total_num_steps": "auto", "warmup_type": "log"}
CONTRADICTIONS: list[tuple[dict[str, Any], dict[str, Any], str, Any]] = [
    ({"train_micro_batch_size_per_gpu": 8}, {}, "train_micro_batch_size_per_gpu", "auto"),
    ({"gradient_accumulation_steps": 8}, {}, "gradient_accumulation_steps", "auto"),
    ({"train_batch_size": 64}, {}, "train_batch_size", "auto"),
    ({"gradient_clipping": 0.3}, {}, "gradient_clipping", "auto"),
    ({"bf16": {"enabled": False}}, {}, "bf16.enabled", True),
    ({"bf16": {"enabled": "auto"}}, {}, "bf16.enabled", True),
    ({"fp16": {"enabled": True, "loss_scale": 0}}, {}, "fp16.enabled", False),
    ({"bfloat16": {"enabled": True}}, {}, "bfloat16", None),
    ({"zero_optimization": {"stage": 3}}, {},
     "zero_optimization.stage3_gather_16bit_weights_on_model_save", True),
    ({"optimizer": {"type": "Lamb", "params": {"lr": 1}}}, {}, "optimizer", None),
    ({"optimizer": {"type": "AdamW", "params": {**ADAM, "lr": 3e-4}}}, {},
     "optimizer.params.lr", "auto"),
    ({"scheduler": {"type": "WarmupLR"}}, {}, "scheduler", None),
    ({"scheduler": {"type": "WarmupDecayLR", "params": {**WARMUP, "warmup_num_steps": 9}}},
     {"training.scheduler": "linear"}, "scheduler.params.warmup_num_steps", "auto"),
    ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
      "zero_force_ds_cpu_optimizer": True}, {}, "zero_force_ds_cpu_optimizer", False),
]  # fmt: skip


@pytest.mark.parametrize(("given", "changes", "key", "after"), CONTRADICTIONS)
def test_ones_own_file_is_changed_only_where_it_contradicts(
    given: dict[str, Any], changes: dict[str, Any], key: str, after: Any
) -> None:
    document = {**COMPLETE, **given}
    made, told = own_file.patched(recipe(**OWN, **changes), document, "bfloat16")
    assert [(change.key, change.after) for change in told] == [(key, after)]
    again = own_file.patched(recipe(**OWN, **changes), made, "bfloat16")
    assert again == (made, ())
    top = key.split(".", maxsplit=1)[0]
    untouched = {name for name in document if name != top}
    assert {name: made[name] for name in untouched} == {name: document[name] for name in untouched}


def test_values_that_agree_stay() -> None:
    document = {**COMPLETE, "gradient_clipping": 1.0, "train_micro_batch_size_per_gpu": 1,
                "optimizer": {"type": "AdamW", "params": {**ADAM, "lr": 1e-4, "torch_adam": True}},
                "wall_clock_breakdown": True}  # fmt: skip
    assert own_file.patched(recipe(**OWN), document, "bfloat16") == (document, ())


def findings(folder: Path, text: str, **changes: Any) -> list[tuple[str, str]]:
    (folder / "z.json").write_text(text)
    return [
        (f.level, f"{f.message}; {f.fix}") for f in deepspeed_file(recipe(**OWN, **changes), folder)
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"zero_optimisation": {}}',
            "zero_optimisation: DeepSpeed does not know it; is it zero_opt",
        ),
        ('{"zero_optimization": {"stage3_max_life_parameters": 1}}', "is it stage3_max_live_par"),
        ('{"zero_optimization": {"offload_optimizer": {"divice": 1}}}', "is it device?"),
        ('{"a": 1,\n "b": }', "z.json:2:7: "),
        ('{"fp16": {}, "fp16": {}}', "fp16 is there twice"),
        ("[1]", "is no JSON object"),
    ],
)
def test_mistakes_in_ones_own_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    told = findings(tmp_path, text)
    assert told[0][0] == "error"
    assert said in told[0][1]


def test_settings_beside_ones_own_file(tmp_path: Path) -> None:
    text = json.dumps({**COMPLETE, "gradient_clipping": 0.5, "_comment": "mine"})
    assert [level for level, _ in findings(tmp_path, text)] == ["note"]
    told = findings(tmp_path, text, **{"distributed.zero_stage": 2})
    assert (
        "error",
        "zero_stage is 2, the file has stage 3; remove zero_stage, or deepspeed_file",
    ) in told
    told = findings(tmp_path, text, **{"distributed.offload": "all"})
    assert "what is offloaded is said in the file" in told[0][1]


@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
def test_the_copy_is_what_the_backend_reads(tmp_path: Path, backend: str) -> None:
    (tmp_path / "z.json").write_text(json.dumps({**COMPLETE, "gradient_clipping": 0.5}))
    file = write_recipe(tmp_path / "r.yaml", backend=backend, **OWN)
    done = ft("recipe", "render", file, "--out", "made", cwd=tmp_path)
    assert done.code == 0, done.err
    config = yaml.safe_load((tmp_path / "made" / "train.yaml").read_text())
    copy = json.loads((tmp_path / "made" / config["deepspeed"]).read_text())
    assert copy == {**COMPLETE, "gradient_clipping": "auto"}
    told = ft("recipe", "validate", file, cwd=tmp_path)
    assert "gradient_clipping: 0.5 -> " in told.out + told.err


FSDP: dict[str, Any] = {"distributed.strategy": "fsdp", "distributed.gpus": 4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, {"FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
              "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_OFFLOAD_PARAMS": "false",
              "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}),
        ({"model.quantization": "nf4"}, {"FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}),
        ({"distributed.offload": "all"}, {"FSDP_OFFLOAD_PARAMS": "true"}),
        ({"distributed.fsdp": {"version": 2, "reshard": False, "state_dict": "SHARDED_STATE_DICT"}},
         {"FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}),
        ({"distributed.fsdp": {"options": ["full_shard", "auto_wrap", "offload"]}},
         {"FSDP_VERSION": "1", "FSDP_OFFLOAD_PARAMS": "true"}),
        ({"distributed.fsdp": {"version": 1, "options": ["shard_grad_op", "auto_wrap"]}},
         {"FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP", "FSDP_SYNC_MODULE_STATES": "true"}),
        ({"distributed.fsdp": {"version": 1, "wrap": "SIZE_BASED_WRAP", "min_parameters": 7,
                               "checkpoint_activations": True}},
         {"FSDP_SHARDING_STRATEGY": "FULL_SHARD", "FSDP_MIN_NUM_PARAMS": "7",
          "FSDP_ACTIVATION_CHECKPOINTING": "true"}),
        ({"distributed.fsdp": {"wrap_class": "LlamaDecoderLayer"}},
         {"FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
def test_fsdp_reaches_accelerate(
    backend: str, changes: dict[str, Any], said: dict[str, str]
) -> None:
    asked = recipe(**FSDP, **changes, backend=backend)
    found = BACKENDS[backend].render(asked, Paths(), Target(processes=4)).variables
    assert found["ACCELERATE_USE_FSDP"] == "true"
    assert said.items() <= found.items()


def test_fsdp_for_ones_own_launch() -> None:
    files, _ = standalone(loaded(**FSDP, backend="llamafactory"))
    config = yaml.safe_load(files.text("accelerate.yaml"))
    assert (config["distributed_type"], config["num_processes"]) == ("FSDP", 4)
    assert config["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert not BACKENDS["axolotl"].render(recipe(), Paths(), Target()).variables


@pytest.mark.parametrize(
    "named",
    [
        {"version": 1, "reshard": True},
        {"reshard": True},
        {"wrap": "SIZE_BASED_WRAP"},
        {"wrap": "SIZE_BASED_WRAP", "min_parameters": -5},
        {"wrap": "transformer"},
        {"version": 3},
        {"state_dict": "full_state_dict"},
        {"options": ["full_shrad"]},
        {"options": ["offload"]},
        {"options": ["full_shard", "shard_grad_op"]},
    ],
)
@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
def test_fsdp_settings_that_cannot_work(backend: str, named: dict[str, Any]) -> None:
    found = check(loaded(**FSDP, **{"distributed.fsdp": named}, backend=backend))
    assert ("FT214", "error") in {(f.code, f.level) for f in found}


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"training.optimizer": "adamw_bnb_8bit"}, "error"),
        ({"training.optimizer": "paged_adamw_32bit"}, "error"),
        ({"training.optimizer": "lion_32bit", "distributed.fsdp": {"version": 2}}, "error"),
        ({"training.optimizer": "lion_32bit", "distributed.fsdp": {"version": 1}}, None),
        ({"training.optimizer": "adamw_torch_8bit"}, None),
        ({"distributed.offload": "optimizer"}, "note"),
        ({"distributed.offload": "all"}, None),
        ({"model.quantization": "nf4", "distributed.fsdp": {"version": 2, "load_on_first": True}},
         "error"),
        ({"model.quantization": "nf4", "distributed.fsdp": {"version": 2}}, None),
        ({"distributed.fsdp": {"version": 2, "load_on_first": True}}, None),
        ({"distributed.fsdp": {"checkpoint_activations": True}}, "error"),
        ({"distributed.fsdp": {"checkpoint_activations": True}, "backend": "llamafactory"},
         "warning"),
        ({"distributed.fsdp": {"checkpoint_activations": True},
          "training.gradient_checkpointing": False}, None),
    ],
)  # fmt: skip
def test_what_fsdp_does_not_work_with(changes: dict[str, Any], level: str | None) -> None:
    found = check(loaded(**{**FSDP, "backend": "axolotl", **changes}))
    assert [f.level for f in found if f.code == "FT215"] == ([level] if level else [])


LORA: dict[str, Any] = {**ZERO3, "adapter": {"type": "lora", "init": "pissa"}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({**LORA, "backend": "llamafactory"}, "adapter.init"),
        ({**LORA, "backend": "llamafactory", "distributed.zero_stage": 2}, None),
        ({**LORA, "backend": "axolotl"}, None),
        ({**ZERO3, "backend": "llamafactory", "model.pure_bf16": True}, "model.pure_bf16"),
        ({"distributed.strategy": "ddp", "training.optimizer": "galore_adamw_layerwise"},
         "training.optimizer"),
        ({"training.optimizer": "galore_adamw_layerwise"}, None),
    ],
)  # fmt: skip
def test_what_a_backend_refuses_when_it_starts(changes: dict[str, Any], field: str | None) -> None:
    found = check(loaded(**changes))
    fields = [f.field for f in found if (f.code, f.level) == ("FT215", "error")]
    assert fields == ([field] if field else [])


@pytest.mark.parametrize(
    ("strategy", "named", "level"),
    [
        ("ddp", {"version": 2}, "warning"),
        ("ddp", {"version": 2, "wrap_class": "LlamaDecoderLayer"}, "error"),
        ("deepspeed", {"reshard": False}, "error"),
        ("auto", {"offload": True}, "error"),
    ],
)
def test_a_section_of_fsdp_without_fsdp(strategy: str, named: dict[str, Any], level: str) -> None:
    found = check(loaded(**{"distributed": {"strategy": strategy, "fsdp": named}}))
    assert (level, "distributed.fsdp") in {(f.level, f.field) for f in found}


def test_a_model_in_parts_is_refused_before_it_is_trained() -> None:
    parts = {"version": 2, "state_dict": "SHARDED_STATE_DICT"}
    for backend, named, told in (
        ("llamafactory", parts, True),
        ("axolotl", parts, True),
        ("axolotl", {**parts, "final_state_dict": "FULL_STATE_DICT"}, False),
    ):
        one = loaded(**FSDP, **{"distributed.fsdp": named}, backend=backend)
        assert (("FT215", "warning") in {(f.code, f.level) for f in check(one)}) is told
        decided = settle(one, None, offline=True).findings
        assert (("FT215", "error") in {(f.code, f.level) for f in decided}) is told


def test_files_for_two_nodes_count_both() -> None:
    both = {**FSDP, "distributed.nodes": 2, "training.effective_batch": 64}
    files, _ = standalone(loaded(**both, backend="llamafactory"))
    assert yaml.safe_load(files.text("train.yaml"))["gradient_accumulation_steps"] == 8
    config = yaml.safe_load(files.text("accelerate.yaml"))
    assert (config["num_processes"], config["num_machines"]) == (8, 2)


LORA3 = {**ZERO3, "adapter.type": "lora"}


@pytest.mark.parametrize(
    ("changes", "reentrant"),
    [
        (LORA3, True),
        ({**LORA3, "training.reentrant": True}, True),
        ({**LORA3, "adapter.type": "none"}, False),
        ({**LORA3, "distributed.zero_stage": 2}, False),
        ({**LORA3, "training.gradient_checkpointing": False}, False),
    ],
)
def test_frozen_weights_in_stage_3_are_recomputed_in_the_way_that_works(
    changes: dict[str, Any], reentrant: bool
) -> None:
    found, told = checkpointing.settled(recipe(**changes))
    assert found.training.reentrant is reentrant
    assert [f.level for f in told] == (["note"] if changes is LORA3 else [])


def test_a_stage_of_ones_own_file_counts_too() -> None:
    found, _ = checkpointing.settled(recipe(**OWN), {"zero_optimization": {"stage": 3}})
    assert found.training.reentrant is True
    found, _ = checkpointing.settled(recipe(**OWN), {"zero_optimization": {"stage": 2}})
    assert found.training.reentrant is False
    _, told = checkpointing.settled(recipe(**{**LORA3, "training.reentrant": False}))
    assert [(f.code, f.level) for f in told] == [("FT215", "error")]
