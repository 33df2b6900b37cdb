"""The ladder: what is changed next, in which order, and that the result stays what it was."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.backends.base import Target
from orchestrator.checks import look
from orchestrator.findings import errors_of
from orchestrator.oom import same
from orchestrator.oom.advice import advice
from orchestrator.oom.ladder import Step, climb, next_step
from orchestrator.oom.shortage import CAUSES, Kind
from orchestrator.recipe.models import Recipe
from tests.helpers import loaded

ONE, FOUR = Target("cuda", True, 1), Target("cuda", True, 4)
CPU, CPUS = Target("cpu", False, 1), Target("cpu", False, 2)
CHECKPOINTING = "training.gradient_checkpointing=true"
ZERO = "distributed.strategy=deepspeed distributed.zero_stage="
OLDER = "training.reentrant=true"  # recomputing under ZeRO-3 with frozen weights
OFF = {"training.gradient_checkpointing": False}
DDP = {"distributed.strategy": "ddp", "distributed.gpus": 4}


def steps(recipe: Recipe, kind: Kind, target: Target, nodes: int = 1) -> Iterator[Step]:
    """All steps up to the top."""
    while step := next_step(recipe, kind, target, nodes):
        yield step
        recipe = step.recipe


def rows(micro: int, accumulation: int) -> str:
    return f"training.micro_batch_size={micro} training.gradient_accumulation={accumulation}"


CLIMBS: list[tuple[dict[str, Any], Kind, Target, list[str]]] = [
    ({"training.micro_batch_size": 4, **OFF}, "gpu", ONE,
     [rows(2, 2), rows(1, 4), CHECKPOINTING,
      f"{ZERO}2 distributed.offload=optimizer distributed.gpus=1",
      f"{ZERO}3 distributed.offload=all {OLDER}"]),
    ({"training.micro_batch_size": 2, "training.gradient_accumulation": 3, **DDP}, "gpu", FOUR,
     [rows(1, 6), f"{ZERO}2", f"{ZERO}3 {OLDER}", f"{ZERO}3 distributed.offload=all"]),
    ({"adapter": None, **DDP}, "gpu", FOUR,
     [f"{ZERO}2", f"{ZERO}3", f"{ZERO}3 distributed.offload=all"]),
    ({"training.micro_batch_size": 6}, "host", CPU, [rows(3, 2), rows(1, 6)]),
    (OFF, "killed", CPU, [CHECKPOINTING]),
    ({**OFF, "distributed.strategy": "ddp", "distributed.gpus": 2}, "host", CPUS,
     [CHECKPOINTING, f"{ZERO}2", f"{ZERO}3 {OLDER}"]),
    ({"training.micro_batch_size": 2, **OFF}, "host", ONE, [rows(1, 2)]),
    ({"training.loader_workers": 4, "training.loader_prefetch": 2}, "workers", ONE,
     ["training.loader_workers=0 training.loader_prefetch=null"]),
    ({"training.loader_workers": 4, "training.micro_batch_size": 2}, "shared", ONE,
     ["training.loader_workers=0"]),
    ({"training.micro_batch_size": 8}, "pinned", ONE, []),
    ({"training.micro_batch_size": 8}, "kernel", ONE, []),
    ({"model.quantization": "int8", **DDP}, "gpu", FOUR,
     [f"{ZERO}2", f"{ZERO}2 distributed.offload=optimizer"]),
    ({"training.optimizer": "adamw_bnb_8bit", **DDP}, "gpu", FOUR,
     [f"{ZERO}2", f"{ZERO}3 {OLDER}"]),
    ({"training.optimizer": "adamw_bnb_8bit"}, "gpu", ONE, []),
    ({"distributed.strategy": "deepspeed", "distributed.deepspeed_file": "mine.json"}, "gpu",
     FOUR, []),
    ({"distributed.strategy": "fsdp", "distributed.gpus": 4}, "gpu", FOUR,
     ["distributed.offload=all"]),
    ({"distributed.strategy": "deepspeed", "distributed.offload": "optimizer"}, "gpu", FOUR,
     [f"{ZERO}3 {OLDER}", f"{ZERO}3 distributed.offload=all"]),
    ({"training.eval_batch_size": 8, "training.evaluate": "epoch", "data.validation": 0.1,
      "training.micro_batch_size": 2}, "host", ONE,
     [f"{rows(1, 2)} training.eval_batch_size=1"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "target", "expected"), CLIMBS)
def test_steps_in_order(
    changes: dict[str, Any], kind: Kind, target: Target, expected: list[str]
) -> None:
    climbed = list(steps(loaded(**changes).recipe, kind, target))
    assert [" ".join(step.settings) for step in climbed] == expected
    assert all(step.reason for step in climbed)


def test_processes_stay_as_many_on_several_nodes() -> None:
    recipe = loaded(**{"distributed.strategy": "ddp", "distributed.nodes": 2}).recipe
    climbed = list(steps(recipe, "gpu", Target("cuda", True, 8), 2))
    assert [s.recipe.distributed.gpus for s in climbed] == [None] * len(climbed)
    alone = list(steps(loaded().recipe, "gpu", ONE))
    assert [s.recipe.distributed.gpus for s in alone] == [1] * len(alone)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    backend=st.sampled_from(["axolotl", "llamafactory"]),
    micro=st.integers(1, 48),
    accumulation=st.integers(1, 6),
    evaluation=st.none() | st.integers(1, 9),
    checkpointing=st.booleans(),
    quantization=st.sampled_from(["none", "int8", "nf4"]),
    optimizer=st.sampled_from(["adamw_torch", "adamw_bnb_8bit"]),
    spread=st.sampled_from(["none", "ddp", "deepspeed", "fsdp"]),
    kind=st.sampled_from(sorted(CAUSES)),
    device=st.sampled_from(("cuda", "cpu")),
    processes=st.integers(1, 4),
)
def test_every_climb_keeps_the_batch_ends_and_stays_valid(
    backend: str,
    micro: int,
    accumulation: int,
    evaluation: int | None,
    checkpointing: bool,
    quantization: str,
    optimizer: str,
    spread: str,
    kind: Kind,
    device: Literal["cuda", "cpu"],
    processes: int,
) -> None:
    processes = 1 if spread == "none" else processes
    recipe = loaded(**{
        "backend": backend, "training.micro_batch_size": micro,
        "training.gradient_accumulation": accumulation, "training.eval_batch_size": evaluation,
        "training.gradient_checkpointing": checkpointing, "training.optimizer": optimizer,
        "model.quantization": quantization, "distributed.strategy": spread,
        "distributed.gpus": None if spread == "none" else processes,
    }).recipe  # fmt: skip
    target = Target(device, True, processes)
    before = {(f.code, f.field) for f in errors_of(look(recipe))}
    seen = [recipe]
    for step in steps(recipe, kind, target):
        now = step.recipe
        assert now not in seen
        assert len(seen) < 16
        training = now.training
        assert training.micro_batch_size * training.gradient_accumulation == micro * accumulation
        assert (training.seed, now.data) == (recipe.training.seed, recipe.data)
        assert (now.model, now.adapter) == (recipe.model, recipe.adapter)
        assert {(f.code, f.field) for f in errors_of(look(now))} <= before
        seen.append(now)


def test_steps_that_cannot_fit_are_passed_by_but_never_the_last() -> None:
    recipe = loaded(**{"training.micro_batch_size": 8, **DDP}).recipe

    def only(stage: int) -> Step:
        step = climb(recipe, "gpu", FOUR, fits=lambda r: r.distributed.zero_stage == stage)
        assert step
        return step

    assert only(3).settings == (
        "training.micro_batch_size=1", "training.gradient_accumulation=8",
        "distributed.strategy=deepspeed", "distributed.zero_stage=3", OLDER,
    )  # fmt: skip
    assert "the memory plan" in only(3).reason
    nothing = climb(recipe, "gpu", FOUR, fits=lambda r: False)
    assert nothing
    assert nothing.recipe.distributed.offload == "all"
    unknown = climb(recipe, "gpu", FOUR, fits=lambda r: None)
    assert unknown
    assert unknown.recipe.training.micro_batch_size == 4


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"training.micro_batch_size": 4}, {"training.micro_batch_size": 2}, ""),
        (OFF, {}, ""),
        (DDP, {"distributed.strategy": "deepspeed", "distributed.gpus": 4},
         "plain training has no optimizer states that ZeRO-2 can read"),
        ({"distributed.strategy": "deepspeed"},
         {"distributed.strategy": "deepspeed", "distributed.zero_stage": 3}, "ZeRO-3"),
        ({"distributed.strategy": "deepspeed"},
         {"distributed.strategy": "deepspeed", "distributed.offload": "optimizer"}, "with offload"),
        ({"distributed.strategy": "fsdp"},
         {"distributed.strategy": "fsdp", "distributed.offload": "all"}, "FSDP with offload"),
    ],
)  # fmt: skip
def test_which_checkpoints_can_be_read(
    before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    found = same.unreadable(loaded(**before).recipe, loaded(**after).recipe)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("changes", "processes", "words"),
    [
        ({"backend": "llamafactory", "data.packing": True}, 1, []),
        ({"data.packing": True, "model.attention": "flash_attention_2"}, 1, ["made anew"]),
        ({"data.packing": True, "model.attention": "sdpa"}, 1, ["fewer packs"]),
        ({}, 1, []),
        ({}, 2, ["filled up"]),
        ({"training.loader_drop_last": True}, 1, ["fewer rows are left out"]),
        ({"adapter.dropout": 0.1}, 1, ["dropout"]),
        ({"training.evaluate": 5}, 1, ["evaluation"]),
        ({"training.stage": "kto"}, 1, ["KTO"]),
    ],
)  # fmt: skip
def test_what_another_micro_batch_changes_is_said(
    changes: dict[str, Any], processes: int, words: list[str]
) -> None:
    before = loaded(**changes, **{"training.micro_batch_size": 4}).recipe
    after = loaded(**changes, **{"training.micro_batch_size": 2}).recipe
    found = list(same.differences(before, after, processes))
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
    assert not list(same.differences(before, before, processes))


def test_advice_names_what_is_not_so_already() -> None:
    first = advice(loaded(**{"training.micro_batch_size": 8, **OFF}).recipe, "gpu", ONE)
    assert first.startswith(
        "--set training.micro_batch_size=4 --set training.gradient_accumulation=2"
    )
    for words in (f"--set {CHECKPOINTING}", "sequence_length=1024", "quantization=nf4", "=auto"):
        assert words in first
    last = advice(
        loaded(**{"distributed.strategy": "deepspeed", "distributed.zero_stage": 3,
                  "distributed.offload": "all", "model.quantization": "nf4"}).recipe, "gpu", FOUR
    )  # fmt: skip
    assert last.splitlines() == [
        "--set data.sequence_length=1024  (rows that are longer are cut or left out)"
    ]
    assert "offload=none" in advice(
        loaded(**{"distributed.strategy": "deepspeed", "distributed.offload": "optimizer"}).recipe,
        "killed", FOUR,
    )  # fmt: skip
    kernel = advice(loaded(**{"kernels.liger": True}).recipe, "kernel", ONE)
    assert "kernels.liger=false" in kernel
    assert "micro_batch" not in kernel
