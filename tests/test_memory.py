"""The memory plan: counts, terms, what fits, and how it compares with other figures."""

import http.server
import json
import statistics
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.backends.base import Target
from orchestrator.distributed import own_file
from orchestrator.errors import BackendEnvironmentError, UsageError
from orchestrator.memory import automatic, fit, gpus, known, lookup, planning
from orchestrator.memory.accuracy import compare, summary
from orchestrator.memory.counting import counted
from orchestrator.memory.estimate import estimate
from orchestrator.memory.gpus import GIB
from orchestrator.memory.layout import Layout, layout
from orchestrator.memory.model import Architecture, read
from orchestrator.memory.optimizers import OPTIMIZERS, optimizer
from orchestrator.memory.settings import Lora, Settings, settings
from orchestrator.memory.term import MOMENTS, Estimate
from orchestrator.recipe.load import load
from orchestrator.recipe.sections.optimizers import HUGGING_FACE
from orchestrator.recipe.sources import shipped
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record
from tests.helpers import ft, loaded

ONE = Layout()
PEAKS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("memory_peaks.json").read_text("utf-8")
)


def architecture(name: str) -> Architecture:
    """The architecture of a hub id in the table."""
    config = known.config_of(name)
    assert config is not None
    return read(config)


LLAMA = architecture("meta-llama/Meta-Llama-3-8B")


# counts


@pytest.mark.parametrize("name", sorted(known.table()))
def test_the_table_has_the_published_number_of_parameters(name: str) -> None:
    row = known.table()[name]
    assert read(row["config"]).parameters == row["parameters"]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("google/gemma-2b", 2_506_172_416),
        ("unsloth/Llama-3.2-1B", 1_235_814_400),
        ("gpt2", 124_439_808),
    ],
)
def test_well_known_totals(model: str, parameters: int) -> None:
    assert architecture(model).parameters == parameters


def test_every_shipped_recipe_has_its_model_in_the_table() -> None:
    for file in shipped("recipes").glob("*.yaml"):
        assert known.config_of(load(file).recipe.model.base), file.name


def test_a_mixture_counts_active_parameters() -> None:
    assert architecture("mistralai/Mixtral-8x7B-v0.1").active == 12_879_925_248


def test_a_multimodal_config_is_read_for_its_text() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34}  # fmt: skip
    found = read({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert found.parameters == 3_880_099_328 + 64 * 2560  # 262,208 rows instead of 262,144
    assert any("image" in note for note in found.notes)


def test_an_unknown_family_is_never_silently_a_llama() -> None:
    config = {**known.table()["llama-3-8b"]["config"], "model_type": "newest"}
    found = read(config)
    assert found.parameters == 8_030_261_248
    assert any("newest is not known" in note for note in found.notes)
    assert estimate(found, Settings(), ONE).notes


OTHERS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("other_families.json").read_text()
)
"""Families without a builder, and the parameters that transformers makes of these configs."""


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_counted_by_the_names_in_their_config(name: str) -> None:
    found = read(OTHERS[name]["config"])
    assert found.parameters == pytest.approx(OTHERS[name]["parameters"], rel=0.03)
    assert any(f"{name} is not known" in note for note in found.notes)


def test_a_multimodal_config_that_names_little_more_than_its_family() -> None:
    text = {"model_type": "llama", "vocab_size": 32064}
    assert read({"model_type": "llava", "text_config": text}).parameters == 6_738_415_616 + 524_288
    tied = read({"tie_word_embeddings": True, "text_config": {"model_type": "qwen2"}})
    assert tied.tied


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_key_value_heads": [8, 4]}, "no usable num_key_value_heads"),
        ({"head_dim": "64"}, "no usable head_dim"),
        ({"num_attention_heads": None}, "newest model has no usable num_attention_heads"),
    ],
)
def test_odd_values_are_named(config: dict[str, Any], message: str) -> None:
    known_one = {**known.table()["llama-3-8b"]["config"], "model_type": "newest"}
    with pytest.raises(UsageError, match=message):
        read({**known_one, **config})


@pytest.mark.parametrize("broken", [{}, {"model_type": "llama"}, {"hidden_size": "4096"}])
def test_a_config_of_something_else_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no usable"):
        read(broken)


# GPUs


@pytest.mark.parametrize(
    ("spec", "count", "nodes", "size"),
    [
        ("4xA100-40GB", 4, 1, 40),
        ("1x24GB", 1, 1, 24),
        ("24GB", 1, 1, 24),
        ("2xH100", 2, 1, 79.6),
        ("A100", 1, 1, 80),
        ("2x4xA100-40GB", 4, 2, 40),
        ("2xRTX 4090", 2, 1, 24),
        ("8 x h200", 8, 1, 140.4),
        ("1xL40S-48GB", 1, 1, 48),
        ("2xRTX-4090", 2, 1, 24),
        ("2xGeForce-RTX-3090", 2, 1, 24),
        ("1x4090", 1, 1, 24),
        ("4xA10G", 4, 1, 22.5),
        ("4xV100-32G", 4, 1, 32),
        ("1xTesla T4", 1, 1, 15),
        ("2x4xNVIDIA A100-SXM4-40GB", 4, 2, 40),
        ("NVIDIA H100 80GB HBM3", 1, 1, 80),
        ("1xH100-NVL", 1, 1, 93.6),
        ("8xMI300X", 8, 1, 192),
        ("NVIDIA RTX 6000 Ada Generation", 1, 1, 48),
    ],
)
def test_gpus_by_name(spec: str, count: int, nodes: int, size: float) -> None:
    found = gpus.parse(spec)
    assert (found.count, found.nodes, found.memory) == (count, nodes, int(size * GIB))


@pytest.mark.parametrize(
    "spec", ["", "4x", "2xFancy", "0xA100", "-1xH100", "1.5xH100", "A100x", "1x0GB"]
)
def test_what_is_no_gpu(spec: str) -> None:
    with pytest.raises(UsageError, match="gpus"):
        gpus.parse(spec)


def test_a_misspelt_gpu() -> None:
    with pytest.raises(UsageError, match="not known") as failed:
        gpus.parse("2xRTX-4009")
    assert "is it RTX4090?" in failed.value.hint
    with pytest.raises(UsageError, match="not known"):
        gpus.parse("A100 MIG 1g.5gb")


# terms


def term(found: Estimate, name: str) -> int:
    """Bytes of the terms of that name."""
    return sum(t.bytes for t in found.terms if t.name == name)


def test_every_term_has_formula_source_and_moments() -> None:
    layouts = (*fit.layouts(1), *fit.layouts(4))
    for one in layouts:
        for changed in (Settings(), Settings(lora=Lora(8), quantization="nf4")):
            for found in estimate(LLAMA, changed, one).terms:
                assert found.formula
                assert found.source
                assert set(found.moments) <= set(MOMENTS)


def test_nf4_constants() -> None:
    quantized = counted(LLAMA, Settings(lora=Lora(8), quantization="nf4")).quantized
    single = Settings(lora=Lora(8), quantization="nf4", double_quantization=False)
    double = estimate(LLAMA, replace(single, double_quantization=True), ONE)
    # arXiv 2305.14314: 0.5 bit per parameter for the constants, 0.127 with double quantization
    assert term(estimate(LLAMA, single, ONE), "nf4 scales") * 8 / quantized == pytest.approx(0.5)
    assert term(double, "nf4 scales") * 8 / quantized == pytest.approx(0.127, abs=5e-4)
    # embeddings, lm_head and norms stay as they are
    assert quantized == 6_979_321_856


def test_fused_experts_stay_unquantized_unless_asked() -> None:
    mixtral = architecture("mistralai/Mixtral-8x7B-v0.1")
    plain = Settings(lora=Lora(8), quantization="nf4")
    few, all_of_it = (counted(mixtral, replace(plain, quantized_experts=x)) for x in (False, True))
    assert few.quantized == 1_342_177_280
    assert all_of_it.quantized - few.quantized == 45_097_156_608


def test_lora_parameters_are_those_of_peft() -> None:
    # peft's print_trainable_parameters: Llama-2-7B, r=8, q_proj and v_proj
    llama = architecture("meta-llama/Llama-2-7b-hf")
    assert counted(llama, Settings(lora=Lora(8, ("q_proj", "v_proj")))).lora == 4_194_304
    every = counted(llama, Settings(lora=Lora(8))).lora
    regular = Lora(8, r".*\.(q|k|v|o|gate|up|down)_proj")
    assert every == counted(llama, Settings(lora=regular)).lora == 19_988_480
    assert counted(llama, Settings(lora=Lora(8, saved=("lm_head",)))).saved == 131_072_000


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_model_states_equal_deepspeeds_own_estimator(count: int, offload: Any) -> None:
    """`estimate_zero2_model_states_mem_needs` of DeepSpeed 0.18.6: 2P + 18P/N, offloaded 2P."""
    found = estimate(LLAMA, Settings(), Layout("zero", count, 2, offload))
    groups = ("weights", "gradients", "optimizer")
    states = sum(
        t.bytes
        for t in found.terms
        if t.group in groups and not t.host and t.name != "temporary of the step"
    )
    share = 18 * LLAMA.parameters / count if offload == "none" else 0
    assert states == pytest.approx(2 * LLAMA.parameters + share, rel=1e-6)


def test_how_backends_hold_a_full_fine_tune() -> None:
    size = {
        name: term(estimate(LLAMA, s, ONE), "weights of the layers")
        + term(estimate(LLAMA, s, ONE), "embeddings, lm_head, norms")
        for name, s in {
            "axolotl": Settings(),
            "axolotl flash": Settings(attention="flash"),
            "llamafactory": Settings(backend="llamafactory"),
            "pure": Settings(backend="llamafactory", pure=True),
        }.items()
    }
    count = LLAMA.parameters
    edges = 2 * LLAMA.embedding + LLAMA.norms.parameters
    assert size["axolotl"] == 2 * count + 2 * edges
    assert size["axolotl flash"] == size["pure"] == 2 * count
    assert size["llamafactory"] == 4 * count


def test_optimizer_states() -> None:
    trained = LLAMA.parameters
    for name, low, high in (
        ("adamw_torch", 8, 8),
        ("adamw_bnb_8bit", 2, 2.5),
        ("paged_adamw_32bit", 8, 8),
        ("lion_8bit", 1, 1.3),
        ("sgd", 0, 0),
        ("adafactor", 0, 0.01),
        ("galore_adamw", 0.1, 1.5),
        ("muon", 4, 5),
    ):
        changed = Settings(backend="llamafactory", optimizer=name)
        states = term(estimate(LLAMA, changed, ONE), f"states of {name}")
        assert low * trained <= states <= high * trained, name


def test_all_optimizers_of_transformers_are_known() -> None:
    assert not [name for name in HUGGING_FACE if name not in OPTIMIZERS]
    assert not optimizer("newest").known
    assert "newest" in estimate(LLAMA, Settings(optimizer="newest"), ONE).notes[0]


def test_logits_go_with_a_fused_loss_and_squares_with_flash() -> None:
    plain = Settings(lora=Lora(8), sequence=4096)
    fused = estimate(LLAMA, replace(plain, loss="fused"), ONE)
    assert term(estimate(LLAMA, plain, ONE), "gradient of the logits") == 12 * 4096 * 128256
    assert not [t for t in fused.terms if t.name in ("logits", "gradient of the logits")]
    squares = [
        estimate(LLAMA, replace(plain, attention=kernel, checkpointing="none"), ONE)
        for kernel in ("eager", "sdpa", "flash")
    ]
    sizes = [found.groups["activations"] for found in squares]
    assert sizes[0] > 3 * sizes[1] > 3 * sizes[2]


# properties

SETTINGS = st.builds(
    Settings,
    backend=st.sampled_from(["axolotl", "llamafactory"]),
    micro_batch=st.integers(1, 32),
    sequence=st.integers(16, 32768),
    accumulation=st.integers(1, 8),
    compute=st.sampled_from([2, 4]),
    checkpointing=st.sampled_from(["none", "layers", "offload"]),
    attention=st.sampled_from(["eager", "sdpa", "flash"]),
    loss=st.sampled_from(["plain", "fused", "chunked", "in place"]),
    lora=st.one_of(st.none(), st.builds(Lora, rank=st.integers(1, 256), dora=st.booleans())),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    projection_rank=st.integers(1, 512),
)
LAYOUTS = st.sampled_from([*fit.layouts(1), *fit.layouts(4)])
MODELS = st.sampled_from(
    ["gpt2", "Qwen/Qwen2.5-0.5B", "mistralai/Mixtral-8x7B-v0.1", "google/gemma-2-2b",
     "deepseek-ai/DeepSeek-V2-Lite", "facebook/opt-350m", "tiiuae/falcon-7b"]
)  # fmt: skip


@hypothesis_settings(max_examples=80, deadline=None)
@given(SETTINGS, LAYOUTS, MODELS, st.integers(1, 4096))
def test_more_of_anything_never_needs_less(
    base: Settings, spread: Layout, model: str, more: int
) -> None:
    model_of = architecture(model)
    before = estimate(model_of, base, spread)
    assert all(t.bytes > 0 for t in before.terms)
    for changed in (
        replace(base, sequence=base.sequence + more),
        replace(base, micro_batch=base.micro_batch + more),
        replace(base, accumulation=base.accumulation + more),
    ):
        after = estimate(model_of, changed, spread)
        assert after.total >= before.total
        assert after.host >= before.host


@hypothesis_settings(max_examples=60, deadline=None)
@given(SETTINGS, st.integers(1, 64), st.sampled_from(["none", "optimizer", "all"]), MODELS)
def test_more_gpus_never_need_more_per_gpu(
    base: Settings, count: int, offload: Any, model: str
) -> None:
    model_of = architecture(model)
    for stage in (1, 2, 3):
        few, many = (
            estimate(model_of, base, Layout("zero", n, stage, offload))
            for n in (count + 1, 2 * count + 2)
        )
        assert many.allocated <= few.allocated
    few, many = (estimate(model_of, base, Layout("fsdp", n, 3)) for n in (count + 1, 2 * count + 2))
    assert many.allocated <= few.allocated


@hypothesis_settings(max_examples=60, deadline=None)
@given(SETTINGS, LAYOUTS, st.integers(2, 80))
def test_a_larger_model_never_needs_less(base: Settings, spread: Layout, layers: int) -> None:
    config = known.table()["llama-3.2-1b"]["config"]
    small, large = (read({**config, "num_hidden_layers": n}) for n in (layers - 1, layers))
    assert estimate(large, base, spread).total >= estimate(small, base, spread).total
    wide = read({**config, "num_hidden_layers": layers, "vocab_size": 256000})
    assert estimate(wide, base, spread).total >= estimate(large, base, spread).total


# what fits


def test_the_largest_batch_is_the_largest() -> None:
    room = gpus.parse("1x24GB")
    base = Settings(lora=Lora(16), quantization="nf4", sequence=2048)
    found = fit.largest_batch(LLAMA, base, ONE, room)
    assert found >= 1
    totals = [estimate(LLAMA, replace(base, micro_batch=n), ONE).total for n in (found, found + 1)]
    assert totals[0] <= room.usable < totals[1]
    length = fit.longest(LLAMA, base, ONE, room)
    assert estimate(LLAMA, replace(base, sequence=length), ONE).total <= room.usable
    assert fit.largest_batch(LLAMA, Settings(), ONE, room) == 0


def test_the_smallest_sharding_that_fits() -> None:
    plan = fit.plan(LLAMA, Settings(), ONE, gpus.parse("4xA100-80GB"))
    assert plan.smallest is not None
    assert plan.smallest.layout.stage >= 1
    order = [choice.layout for choice in plan.choices]
    before = plan.choices[: order.index(plan.smallest.layout)]
    assert not any(choice.fits for choice in before)


def test_what_cannot_be_combined_is_refused() -> None:
    eight = fit.plan(LLAMA, Settings(optimizer="adamw_bnb_8bit"), ONE, gpus.parse("4x24GB"))
    refused = {c.layout.name for c in eight.choices if c.refused}
    assert refused == {"FSDP", "ZeRO-2 + optimizer offload", "ZeRO-3 + offload"}
    assert fit.refused(Layout("zero", 4, 3), Settings(quantization="int8", lora=Lora(8)))
    paged = Settings(optimizer="paged_adamw_32bit")
    assert fit.refused(Layout("fsdp", 4, 3), paged)
    assert not fit.refused(Layout("fsdp", 4, 3, version=1), paged)
    assert not fit.refused(Layout("zero", 4, 3), paged)


def test_host_memory_decides_about_offload() -> None:
    one = gpus.parse("1x24GB")
    choice = fit.choice(LLAMA, Settings(), Layout("zero", 1, 2, "optimizer"), one, host=64 * GIB)
    assert choice.estimate.host > 64 * GIB
    assert (choice.fits, choice.crowded_host) == (False, True)
    recipe = loaded(**{"adapter": {"type": "none"}, "distributed": {"strategy": "auto"}}).recipe
    _, note = automatic.choose(LLAMA, recipe, gpus.parse("4x32GB"), host=16 * GIB)
    assert "of host memory" in note.message


def test_the_number_of_gpus_of_the_recipe_holds_unless_another_is_given() -> None:
    found = lookup.Found(known.table()["mistral-7b-v0.3"]["config"], "here")
    recipe = loaded(**{"distributed": {"strategy": "ddp", "gpus": 2}}).recipe
    four = gpus.parse("4x24GB")
    for changed, count in ((recipe, 2), (planning.on_any_number(recipe), 4)):
        plan = planning.of_recipe(changed, found, four).plan
        assert {plan.own.layout.gpus, *(c.layout.gpus for c in plan.choices)} == {count}


# recipes


def test_settings_of_a_recipe() -> None:
    recipe = loaded(
        **{
            "training.micro_batch_size": 4,
            "data.sequence_length": 1024,
            "model.quantization": "nf4",
            "kernels.liger": True,
            "model.attention": "flash_attention_2",
            "training.gradient_checkpointing": False,
            "training.optimizer": "paged_adamw_8bit",
            "adapter.rank": 32,
        }
    ).recipe
    found = settings(recipe, LLAMA, Target("cuda"))
    assert found == Settings(
        backend="axolotl", micro_batch=4, sequence=1024, checkpointing="none", attention="flash",
        loss="chunked", quantization="nf4", lora=Lora(32), optimizer="paged_adamw_8bit",
        projection_rank=128,
    )  # fmt: skip


def test_preference_pairs_double_the_tokens_and_a_reference_model() -> None:
    recipe = loaded(
        **{
            "training.stage": "dpo",
            "adapter": {"type": "none"},
            "data.sources": [{"path": "user/data", "format": "preference"}],
            "data.chat_template": "chatml",
        }
    ).recipe
    found = settings(recipe, LLAMA, Target("cuda"))
    assert found.tokens == 2 * found.sequence
    assert term(estimate(LLAMA, found, ONE), "reference model") == 2 * LLAMA.parameters


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"adapter": {"type": "none"}}, True),
        ({}, False),
        ({"adapter": {"type": "none"}, "training.preference": {"loss": "simpo"}}, False),
        ({"adapter": {"type": "none"},
          "training.preference": {"precomputed_reference": True}}, False),
        ({"training.preference": {"reference_model": "user/other"}}, True),
    ],
)  # fmt: skip
def test_when_a_reference_model_is_loaded(changes: dict[str, Any], expected: bool) -> None:
    asked = {"training.stage": "dpo", "data.chat_template": "chatml", "adapter": {"type": "lora"},
             "data.sources": [{"path": "user/data", "format": "preference"}]}  # fmt: skip
    recipe = loaded(**{**asked, **changes}).recipe
    assert settings(recipe, LLAMA, Target("cuda")).reference is expected


@pytest.mark.parametrize(("backend", "sequences"), [("axolotl", 1), ("llamafactory", 2)])
def test_the_second_sequence_of_kto(backend: str, sequences: int) -> None:
    asked = {"training.stage": "kto", "data.chat_template": "chatml",
             "data.sources": [{"path": "user/data", "format": "kto"}]}  # fmt: skip
    recipe = loaded(**asked, backend=backend).recipe
    assert settings(recipe, LLAMA, Target("cuda")).sequences == sequences


def test_layouts_of_recipes() -> None:
    zero = loaded(**{"distributed": {"strategy": "deepspeed", "zero_stage": 3, "offload": "all"}})
    assert replace(layout(zero.recipe, 4), buckets=()) == Layout("zero", 4, 3, "all")
    assert layout(loaded().recipe, 4) == ONE
    fsdp = loaded(**{"distributed": {"strategy": "fsdp"}}).recipe
    assert layout(fsdp, 2, 2) == Layout("fsdp", 4, 3, "none", 2)


def test_the_accumulation_of_an_effective_batch_is_planned_for() -> None:
    """With it gradients are kept between the forward passes."""
    spread = {"distributed": {"strategy": "ddp", "gpus": 2}, "adapter": {"type": "lora"}}
    found = lookup.Found(known.table()["llama-3-8b"]["config"], "here")

    def total(**training: Any) -> int:
        recipe = loaded(**spread, **{f"training.{k}": v for k, v in training.items()}).recipe
        return planning.of_recipe(recipe, found, gpus.parse("2xH200")).plan.own.estimate.total

    assert total(effective_batch=8) == total(gradient_accumulation=4)
    assert total(effective_batch=8) > total(effective_batch=2)


@pytest.mark.parametrize(
    ("fsdp", "expected"),
    [
        ({"options": ["full_shard", "auto_wrap"]}, {}),
        ({"options": ["shard_grad_op"]}, {"kept": True}),
        ({"options": ["hybrid_shard"]}, {"parts": 4}),
        ({"options": ["no_shard"]}, {"parts": 1}),
        ({"options": ["full_shard", "offload"]}, {"offload": "all"}),
        ({"version": 2, "reshard": False}, {"kept": True}),
        ({"version": 2, "options": ["shard_grad_op", "auto_wrap"]}, {"kept": True}),
        ({"version": 2, "offload": True}, {"offload": "all"}),
    ],
)
def test_what_fsdp_shards(fsdp: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = loaded(**{"distributed": {"strategy": "fsdp", "fsdp": fsdp}}).recipe
    version = fsdp.get("version", 1)
    assert layout(asked, 4, 2) == replace(
        Layout("fsdp", 8, 3, "none", 2, version=version), **expected
    )


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("q_proj", "c_attn"), "called q_proj: it has c_attn, c_fc, c_proj"),
        (("c_attn", "lm_head"), "called lm_head"),
        (("transformer.h.0.attn.c_attn",), ""),
        ("all-linear", ""),
    ],
)
def test_a_lora_on_what_the_model_does_not_have(targets: Any, told: str) -> None:
    recipe = loaded(**{"adapter": {"type": "lora", "targets": targets}}).recipe
    found = " ".join(settings(recipe, read({"model_type": "gpt2"}), Target("cuda")).notes)
    assert (told in found) if told else found == ""
    newest = read({**known.table()["llama-3-8b"]["config"], "model_type": "newest"})
    assert settings(recipe, newest, Target("cuda")).notes == ()


def test_layers_that_fsdp_recomputes() -> None:
    spread = {"strategy": "fsdp", "fsdp": {"checkpoint_activations": True}}
    asked = {"distributed": spread, "training.gradient_checkpointing": False}
    assert settings(loaded(**asked).recipe, LLAMA, Target("cuda")).checkpointing == "layers"
    spread["strategy"] = "ddp"
    assert settings(loaded(**asked).recipe, LLAMA, Target("cuda")).checkpointing == "none"


def test_less_sharding_needs_more() -> None:
    full = Layout("fsdp", 8, 3)
    sizes = [
        estimate(LLAMA, Settings(), one).total
        for one in (full, replace(full, parts=4), replace(full, kept=True), replace(full, parts=1))
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1]


def test_weights_alone_in_host_memory() -> None:
    zero = {"stage": 3, "offload_param": {"device": "cpu"}, "max_live_parameters": 0}
    asked = loaded(**{"distributed": {"strategy": "deepspeed", "deepspeed_file": "z.json"}}).recipe
    made = layout(asked, 4, own={"zero_optimization": zero})
    assert (made.moves_weights, made.moves_states) == (True, False)
    assert ("stage3_max_live_parameters", 0) in made.buckets
    both, states = estimate(LLAMA, Settings(), made), Layout("zero", 4, 3, "all")
    assert both.total > estimate(LLAMA, Settings(), states).total
    two = {"zero_optimization": {**zero, "stage": 2}}
    assert layout(asked, 4, own=two).offload == "none"


def test_a_deepspeed_file_of_ones_own_decides(tmp_path: Path) -> None:
    file = tmp_path / "zero.json"
    zero = {"stage": 2, "reduce_bucket_size": 10**8, "overlap_comm": True,
            "offload_optimizer": {"device": "cpu"}}  # fmt: skip
    file.write_text(json.dumps({"zero_optimization": zero}))
    recipe = loaded(
        **{"distributed": {"strategy": "deepspeed", "deepspeed_file": "zero.json"}}
    ).recipe
    own = own_file.of_recipe(recipe, tmp_path)
    spread = layout(recipe, 4, own=own)
    assert (spread.stage, spread.offload) == (2, "optimizer")
    found = estimate(LLAMA, Settings(), spread)
    assert term(found, "reduce bucket") == 2 * 2 * 10**8
    assert term(found, "all-gather bucket") == 2 * 5 * 10**8
    assert own_file.of_recipe(recipe, tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("spec", "strategy", "stage"),
    [
        ("1xA100-80GB", "none", None),
        ("8xH200", "ddp", None),
        ("4xA100-80GB", "deepspeed", 1),
        ("8x48GB", "deepspeed", 2),
        ("8x32GB", "deepspeed", 3),
    ],
)
def test_auto_takes_the_first_that_fits(spec: str, strategy: str, stage: int | None) -> None:
    small = {"adapter": {"type": "none"}, "training.micro_batch_size": 1,
             "data.sequence_length": 512, "model.attention": "flash_attention_2",
             "training.optimizer": "adamw_bnb_8bit" if strategy == "none" else "adamw_torch",
             "distributed": {"strategy": "auto"}}  # fmt: skip
    recipe = loaded(**small).recipe
    choice, note = automatic.choose(LLAMA, recipe, gpus.parse(spec), host=4096 * GIB)
    spread = automatic.applied(recipe, choice.layout).distributed
    assert (spread.strategy, spread.zero_stage if stage else None) == (strategy, stage), note
    assert note.level == "note"
    assert choice.layout.name in note.message


def test_auto_says_when_nothing_fits() -> None:
    recipe = loaded(**{"adapter": {"type": "none"}, "distributed": {"strategy": "auto"}}).recipe
    choice, note = automatic.choose(LLAMA, recipe, gpus.parse("1x16GB"), host=32 * GIB)
    assert not choice.fits
    assert (note.code, note.level) == ("FT244", "warning")


def test_auto_without_gpus_is_one_process() -> None:
    start = loaded(**{"distributed": {"strategy": "auto", "gpus": 4}})
    decided, notes = automatic.settled(start, None, None, network=False)
    assert decided.recipe.distributed.strategy == "none"
    assert [note.code for note in notes] == ["FT244"]
    assert automatic.undecided(start.recipe)
    assert not automatic.undecided(decided.recipe)


# finding a config


def test_the_config_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    recipe = loaded().recipe
    table = lookup.find(recipe, tmp_path, None, network=False)
    assert table.origin == "ft's table of models"
    cached = tmp_path / "hub" / "models--mistralai--Mistral-7B-v0.3"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text('{"model_type": "mistral"}')
    assert lookup.find(recipe, tmp_path, None, network=False).origin == "the hub's cache"
    given = tmp_path / "config.json"
    given.write_text("[]")
    with pytest.raises(UsageError, match=r"no config\.json"):
        lookup.find(recipe, tmp_path, given, network=False)
    given.write_text('{"model_type": "llama"}')
    assert lookup.find(recipe, tmp_path, tmp_path, network=False).origin == str(given)
    unknown = loaded(**{"model.base": "nobody/nothing"}).recipe
    with pytest.raises(BackendEnvironmentError, match="neither in the cache"):
        lookup.find(unknown, tmp_path, None, network=False)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that has one model's config, and a gated one."""

    def do_GET(self) -> None:
        known_one = self.path == "/some/model/resolve/main/config.json"
        self.send_response(200 if known_one else 403 if "gated" in self.path else 404)
        if not known_one:
            code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if known_one:
            self.wfile.write(json.dumps(known.table()["mistral-7b-v0.3"]["config"]).encode())

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a running `Hub`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [("some/model", 0, ""), ("some/gated", 4, "is gated"), ("some/other", 4, "has no config")],
)
def test_the_hub_is_asked_for_one_file(
    hub: str, tmp_path: Path, model: str, code: int, message: str
) -> None:
    done = ft(
        "plan", "memory", "mistral-qlora", "--set", f"model.base={model}", "--json",
        HF_ENDPOINT=hub, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0",
    )  # fmt: skip
    assert done.code == code, done.err
    assert message in done.err
    if not code:
        assert done.json["config_from"] == "the hub"
    assert not list(tmp_path.rglob("config.json"))


def test_a_hub_that_cannot_be_reached_is_said_at_once(tmp_path: Path) -> None:
    done = ft(
        "plan", "memory", "mistral-qlora", "--set", "model.base=some/model",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0",
    )  # fmt: skip
    assert done.code == 4
    assert "cannot be reached" in done.err


# the command line


def test_plan_memory_answers(tmp_path: Path) -> None:
    done = ft("plan", "memory", "mistral-qlora", "--gpus", "1x24GB", "--json")
    document = done.json
    assert done.code == 0
    assert document["model"]["parameters"] == 7_248_023_552
    assert document["recipe"]["fits"] is True
    assert document["largest_micro_batch_size"] >= 4
    assert {"formula", "source", "bytes"} <= set(document["recipe"]["terms"][0])
    text = ft("plan", "memory", "mistral-qlora", "--gpus", "1x24GB", "--explain", COLUMNS="80")
    assert "Largest micro batch" in text.out
    assert "arXiv 2305.14314" in text.out
    assert max(len(line) for line in text.out.splitlines() if "│" in line or "─" in line) <= 80


def test_plan_memory_exits_with_3_if_it_does_not_fit() -> None:
    done = ft("plan", "memory", "llama-full-z2", "--gpus", "2x8GB")
    assert done.code == 3
    assert "does not fit" in done.out
    assert "What would help" in done.out


def test_plan_memory_without_a_config() -> None:
    done = ft("plan", "memory", "mistral-qlora", "--set", "model.base=nobody/nothing", "--offline")
    assert done.code == 4
    assert "--config FILE" in done.err


def test_recipe_plan_has_a_line_on_memory() -> None:
    done = ft("recipe", "plan", "llama-full-z2")
    assert "memory: " in done.out
    assert ft("recipe", "plan", "llama-full-z2", "--smoke").out.count("memory: ") == 0
    assert ft("recipe", "plan", "llama-full-z2", "--json").json["memory"]["total_bytes"] > GIB


def test_rendering_needs_auto_said(tmp_path: Path) -> None:
    done = ft("recipe", "render", "mistral-qlora", "--set", "distributed.strategy=auto",
              "--out", tmp_path)  # fmt: skip
    assert done.code == 2
    assert "FT244" in done.err


# measured


def record(folder: Path, memory: Any) -> Record:
    """A finished run's record."""
    facts = {"memory": memory}
    return Record(RunLayout(folder), {"recipe": "r", "stages": {"train": {"facts": facts}}})


def test_predicted_beside_measured(tmp_path: Path) -> None:
    predicted = {"layout": "DDP", "allocated": 110, "total": 500}
    on_gpu = {"predicted": predicted, "measured": {"cuda_allocated": 100, "host": 5}}
    on_cpu = {"predicted": predicted, "measured": {"cuda_allocated": None, "host": 400}}
    found = [compare(record(tmp_path, memory)) for memory in (on_gpu, on_cpu, None)]
    assert found[2] is None
    pair = [one for one in found if one]
    assert [round(one.error, 3) for one in pair] == [0.1, 0.25]
    assert summary(pair) == {"gpu_runs": 1, "median_error": 0.1, "worst_error": 0.1}
    assert summary([])["gpu_runs"] == 0


def settings_of(row: dict[str, Any]) -> Settings:
    """The settings of a recorded measurement."""
    lora = Lora(row["lora"], dropout=bool(row.get("dropout"))) if row.get("lora") else None
    return Settings(
        backend="llamafactory" if row["hold"] == "float32" else "axolotl",
        micro_batch=row["batch"],
        sequence=row["sequence"],
        accumulation=row.get("accumulation", 1),
        checkpointing="layers" if row["checkpointing"] else "none",
        attention=row.get("attention", "sdpa"),
        lora=lora,
    )


def test_estimates_agree_with_what_the_real_code_allocates() -> None:
    """`memory_peaks.json`: peaks of transformers 5.16.1 and torch 2.13.0 on fake tensors.

    Made by `tests/smoke/memory_reference.py`; `layers`: the model was cut to so many.
    """
    errors = []
    for row in PEAKS:
        config = dict(known.table()[row["model"]]["config"])
        config["num_hidden_layers"] = row.get("layers", config["num_hidden_layers"])
        model = read(config)
        found = estimate(model, settings_of(row), ONE).allocated
        errors.append(found / row["measured"]["peak"] - 1)
    assert len(errors) >= 20
    assert statistics.median(abs(error) for error in errors) < 0.015
    assert -0.06 < min(errors) <= max(errors) < 0.10


def test_a_short_line() -> None:
    found = lookup.Found(known.table()["mistral-7b-v0.3"]["config"], "here")
    memory = planning.of_recipe(loaded().recipe, found, gpus.parse("1x24GB"))
    assert planning.short(memory).endswith("23 GiB usable: fits")
    assert "estimated" in planning.short(planning.of_recipe(loaded().recipe, found, None))
