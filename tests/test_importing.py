"""Importing: whose file it is, that nothing gets lost, and that it renders to the same."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.backends import capabilities, fields
from orchestrator.backends.keys import load_keys
from orchestrator.checks import check
from orchestrator.findings import RecipeError, errors_of
from orchestrator.importing.detect import detect
from orchestrator.importing.effective import effective, same
from orchestrator.importing.importer import Imported, import_file, rendered
from orchestrator.recipe.load import Loaded, from_document, model_at, split_field
from orchestrator.recipe.yaml_source import parse
from orchestrator.standalone import standalone
from orchestrator.yaml_out import dump
from tests.helpers import ROOT, ft

CONFIGURATIONS = ROOT / "tests" / "configurations"
GOLDEN = ROOT / "tests" / "golden" / "imported"
SOURCES = sorted(f for f in CONFIGURATIONS.iterdir() if f.suffix in (".yml", ".yaml"))
INFO: dict[str, Any] = json.loads((CONFIGURATIONS / "dataset_info.json").read_text("utf-8"))
CORPUS = ROOT.parent / "shared" / "corpus"
REWRITE = os.environ.get("FT_GOLDEN") == "write"

AXOLOTL: dict[str, Any] = {
    "base_model": "example/Base",
    "datasets": [{"path": "example/data", "type": "alpaca"}],
    "learning_rate": 1e-4,
    "micro_batch_size": 1,
}
LLAMAFACTORY: dict[str, Any] = {
    "model_name_or_path": "example/Base",
    "stage": "sft",
    "do_train": True,
    "dataset": "one,two",
    "template": "llama3",
}


def imported(folder: Path, config: dict[str, Any], **options: Any) -> Imported:
    """The import of a configuration given as data."""
    file = folder / "config.yaml"
    file.write_text(dump(config), encoding="utf-8")
    return import_file(file, **options)


def reloaded(result: Imported, backend: str | None = None) -> Loaded:
    """The recipe as somebody would load it."""
    document, findings = parse(result.text, "recipe.yaml")
    return from_document(document, findings, Path("recipe.yaml"), backend=backend)


def codes(result: Imported) -> set[str]:
    return {finding.code for finding in result.findings}


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
@pytest.mark.parametrize("described", [False, True], ids=["names", "described"])
def test_golden_imports_are_the_reviewed_ones(source: Path, described: bool) -> None:
    if described and not source.stem.startswith("llamafactory"):
        pytest.skip("axolotl's configurations describe their data themselves")
    result = import_file(source, info=INFO if described else None)
    golden = GOLDEN / f"{source.stem}{'-described' if described else ''}.yaml"
    if REWRITE:
        golden.write_text(result.text, encoding="utf-8")
    assert result.text == golden.read_text("utf-8")
    assert not result.differences
    assert result.share > 0.9
    assert reloaded(result).recipe == result.recipe


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_rendered_files_of_an_import_mean_what_the_source_meant(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no DeepSpeed file is found, which would be copied
    result = import_file(source)
    files, _ = standalone(reloaded(result))
    assert result.recipe
    made = yaml.safe_load(files.text("train.yaml"))
    assert same(
        effective(made, result.recipe.backend),
        effective(rendered(result.recipe), result.recipe.backend),
    )


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (AXOLOTL, "axolotl"),
        (LLAMAFACTORY, "llamafactory"),
        ({"model_name_or_path": "a", "template": "t", "export_dir": "o"}, "llamafactory-export"),
        ({"model_name_or_path": "a", "infer_backend": "vllm"}, "llamafactory-inference"),
        ({**LLAMAFACTORY, "do_train": False, "do_predict": True}, "llamafactory-predict"),
        ({"model": "a", "train_dataset": "d", "dist_config": {"name": "x"}}, "llamafactory-v1"),
        ({**LLAMAFACTORY, "tensor_model_parallel_size": 2}, "llamafactory-megatron"),
        ({"compute_environment": "LOCAL_MACHINE", "num_processes": 2}, "accelerate"),
        ({"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}, "deepspeed"),
        ({"one": {"file_name": "one.json"}}, "dataset-info"),
        ({"cluster_name": "c", "head_node_type": "h"}, "ray"),
        ({"provider": "somewhere", "gpu": "h100", "gpu_count": 1}, "cloud"),
        ({"model": {"base": "a"}, "data": {}, "training": {}}, "recipe"),
        ({"hello": "world"}, "other"),
        (["a"], "other"),
        (None, "other"),
    ],
)
def test_whose_file_it_is(config: Any, kind: str) -> None:
    assert detect(config).kind == kind


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"flash_attention": True}, "model.attention", "flash_attention_2"),
        ({"sdp_attention": True}, "model.attention", "sdpa"),
        ({"xformers_attention": True}, "model.attention", "xformers"),
        ({"gradient_checkpointing": "offload"}, "training.offload_activations", True),
        ({"gradient_checkpointing": "offload_disk"}, "training.offload_activations", "disk"),
        ({"evaluation_strategy": "epoch", "val_set_size": 9}, "training.evaluate", "epoch"),
        ({"noisy_embedding_alpha": 5.0}, "training.neftune_alpha", 5.0),
        ({"sequence_parallel_degree": 2}, "distributed.context_parallel", 2),
        ({"learning_rate": "2e-5"}, "training.learning_rate", 2e-5),
        ({"fsdp_config": {"fsdp_offload_params": True}}, "distributed.fsdp.offload", True),
    ],
)
def test_old_spellings_of_axolotl_are_modernised(
    tmp_path: Path, change: dict[str, Any], field: str, value: Any
) -> None:
    result = imported(tmp_path, {**AXOLOTL, **change})
    assert result.recipe
    assert fields.field_value(result.recipe, field) == value
    assert not result.differences
    assert "FT512" in codes(result)


def test_old_conversations_of_axolotl_are_modernised(tmp_path: Path) -> None:
    entry = {"path": "example/chat", "type": "sharegpt", "conversation": "chatml"}
    result = imported(tmp_path, {**AXOLOTL, "chat_template": "chatml", "datasets": [entry]})
    assert result.recipe
    source = result.recipe.data.sources[0]
    assert (source.format, source.chat_template) == ("sharegpt", "chatml")
    assert not source.native.axolotl


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"fp16": True}, "model.dtype", "float16"),
        ({"dataset": ["one", "two"]}, "data.registry", "data"),
        ({"lora_target": ["q_proj", "k_proj"]}, "adapter.targets", ("q_proj", "k_proj")),
        ({"evaluation_strategy": "epoch", "val_size": 0.1}, "training.evaluate", "epoch"),
        ({"template": "default"}, "data.chat_template", "default"),
        ({"learning_rate": "1e-4"}, "training.learning_rate", 1e-4),
        ({"report_to": ["wandb"]}, "tracking.type", "wandb"),
        ({"use_muon": True}, "training.optimizer", "muon"),
    ],
)
def test_forms_of_llamafactory(
    tmp_path: Path, change: dict[str, Any], field: str, value: Any
) -> None:
    result = imported(tmp_path, {**LLAMAFACTORY, **change})
    assert result.recipe
    assert fields.field_value(result.recipe, field) == value
    assert not result.differences
    assert not result.native


def test_unknown_keys_are_told_with_line_and_guess_and_left_out(tmp_path: Path) -> None:
    config = {
        **AXOLOTL,
        "micro_batch_sise": 3,
        "liger_rope": True,
        "fsdp_config": {"offload_params": True, "sharding_strategy": "FULL_SHARD"},
    }
    result = imported(tmp_path, config)
    told = {f.field: f for f in result.findings if f.code == "FT511"}
    assert set(told) == {"micro_batch_sise", "liger_rope", "fsdp_config.sharding_strategy"}
    assert "did you mean 'micro_batch_size'" in told["micro_batch_sise"].message
    assert all(f.level == "warning" and f.place and f.place.line for f in told.values())
    body = "\n".join(line for line in result.text.splitlines() if not line.startswith("#"))
    assert "micro_batch_sise" not in body
    assert "# Left out, it does nothing there: micro_batch_sise" in result.text
    strict = imported(tmp_path, config, strict=True)
    assert {f.level for f in strict.findings if f.code == "FT511"} == {"error"}


def test_what_no_field_holds_is_native(tmp_path: Path) -> None:
    kept = {"kd_alpha": 0.5, "plugins": ["axolotl.integrations.kd.KDPlugin"]}
    result = imported(tmp_path, {**AXOLOTL, **kept, "deepspeed": {"zero": {"stage": 1}}})
    assert result.recipe
    assert result.recipe.native.axolotl == {"kd_alpha": 0.5, "deepspeed": {"zero": {"stage": 1}}}
    assert result.recipe.kernels.plugins == ("axolotl.integrations.kd.KDPlugin",)
    assert not result.differences
    assert set(result.native) == {"kd_alpha", "deepspeed.zero.stage"}


def test_values_that_do_not_fit_stay_native(tmp_path: Path) -> None:
    result = imported(tmp_path, {**AXOLOTL, "seed": -1, "warmup_steps": 0.1})
    assert result.recipe
    assert result.recipe.native.axolotl["seed"] == -1
    assert not result.differences


def test_without_a_model_or_data_there_is_no_recipe(tmp_path: Path) -> None:
    config = {key: value for key, value in AXOLOTL.items() if key != "datasets"}
    result = imported(tmp_path, config)
    assert result.recipe is None
    assert "FT513" in codes(result)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: !x 1\n", "base_model: {a: 1}\n", "\t"])
def test_broken_files_are_told_not_raised(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yml"
    file.write_text(text, encoding="utf-8")
    result = import_file(file)
    assert result.recipe is None
    assert errors_of(result.findings)


def test_the_other_backend_gets_what_it_can_express(tmp_path: Path) -> None:
    config = {**AXOLOTL, "loss_watchdog_threshold": 3.0, "attn_implementation": "flex_attention",
              "kd_alpha": 0.5, "plugins": ["axolotl.integrations.kd.KDPlugin"]}  # fmt: skip
    loaded = reloaded(imported(tmp_path, config), backend="llamafactory")
    with pytest.raises(RecipeError) as error:
        standalone(loaded, written_for="axolotl")
    told = {f.field for f in error.value.findings if f.level == "error"}
    assert told == {
        "training.watchdog_threshold",
        "model.attention",
        "kernels.plugins",
        "native.axolotl.kd_alpha",
    }
    files, findings = standalone(loaded, allow_loss=True, written_for="axolotl")
    assert {f.field for f in findings if f.level == "warning"} >= told
    assert set(yaml.safe_load(files.text("train.yaml"))) <= set(load_keys("llamafactory")["keys"])


def test_another_stage_is_no_loss_that_can_be_allowed(tmp_path: Path) -> None:
    result = import_file(CONFIGURATIONS / "axolotl-grpo.yml")
    with pytest.raises(RecipeError):
        standalone(reloaded(result, backend="llamafactory"), allow_loss=True)


def test_every_row_of_the_table_is_a_field_and_known_keys() -> None:
    seen: set[str] = set()
    for pair in fields.PAIRS:
        path = split_field(pair.field)
        model = model_at(path[:-1])
        assert model
        assert str(path[-1]) in model.model_fields
        assert model.model_fields[str(path[-1])].default is None
        assert pair.axolotl or pair.llamafactory
        for backend in ("axolotl", "llamafactory"):
            key = pair.key(backend)
            if key:
                assert key.split(".")[0] in load_keys(backend)["keys"]
                assert f"{backend}:{key}" not in seen
                seen.add(f"{backend}:{key}")


def test_the_readme_has_the_present_table_of_capabilities_golden() -> None:
    file = ROOT / "README.md"
    text = file.read_text("utf-8")
    begin, end = "<!-- capabilities -->\n", "<!-- /capabilities -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    made = f"{before}{begin}{capabilities.markdown()}{end}{after}"
    if REWRITE:
        file.write_text(made, encoding="utf-8")
        text = made
    assert text == made


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(1, 4096),
    "float": st.floats(0.001, 0.9).map(lambda number: round(number, 4)),
    "str": st.sampled_from(["epoch", "no", "auto", "steps", "x", "1e-5", "on"]),
}


def configurations(backend: str, base: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The base with any known keys set to values of their types."""
    known: dict[str, st.SearchStrategy[Any]] = {}
    for key, spec in load_keys(backend)["keys"].items():
        kinds = [kind for kind in str(spec.get("type", "")).split(" | ") if kind in VALUES]
        if key in base or spec.get("alias_of") or spec.get("plugin") or not kinds:
            continue
        choices = [VALUES[kind] for kind in kinds]
        if spec.get("choices"):
            choices = [st.sampled_from([c for c in spec["choices"] if c is not None])]
        known[key] = st.one_of(choices)
    some = st.lists(st.sampled_from(sorted(known)), max_size=14, unique=True)
    return some.flatmap(lambda keys: st.fixed_dictionaries({key: known[key] for key in keys})).map(
        lambda extra: {**base, **extra}
    )


RUNS = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@RUNS
@given(config=configurations("axolotl", AXOLOTL))
def test_any_axolotl_configuration_comes_back(tmp_path: Path, config: dict[str, Any]) -> None:
    _comes_back(imported(tmp_path, config))


@RUNS
@given(config=configurations("llamafactory", LLAMAFACTORY))
def test_any_llamafactory_configuration_comes_back(tmp_path: Path, config: dict[str, Any]) -> None:
    if detect(config).training:
        _comes_back(imported(tmp_path, config))


def _comes_back(result: Imported) -> None:
    assert result.recipe, [f.message for f in result.findings]
    assert not result.differences
    assert reloaded(result).recipe == result.recipe
    check(reloaded(result))


def test_import_on_the_command_line(tmp_path: Path) -> None:
    source = CONFIGURATIONS / "axolotl-chat-qlora.yml"
    target = tmp_path / "chat.yaml"
    done = ft("recipe", "import", source, "--to", target)
    assert done.code == 0
    assert "did you mean 'lora_alpha'" in done.err
    text = target.read_text("utf-8")
    assert text.startswith("# Imported by ft from axolotl-chat-qlora.yml")
    assert "# Two lines of comment stay at the top." in text
    assert ft("recipe", "validate", target, cwd=tmp_path).code in (0, 2)
    assert ft("recipe", "import", source, "--to", target).code == 2
    assert ft("recipe", "import", source, "--check").code == 0
    assert ft("recipe", "import", source, "--strict").code == 3
    report = ft("recipe", "import", source, CONFIGURATIONS / "llamafactory-dpo.yaml", "--json").json
    assert [entry["exact"] for entry in report["files"]] == [True, True]
    other = tmp_path / "accelerate.yaml"
    other.write_text("compute_environment: LOCAL_MACHINE\n", encoding="utf-8")
    refused = ft("recipe", "import", other)
    assert refused.code == 2
    assert "an accelerate configuration" in refused.err


def test_capabilities_on_the_command_line() -> None:
    rows = ft("backend", "capabilities", "--json").json["capabilities"]
    found = {row["field"]: row for row in rows if not row["concept"]}
    assert found["training.adam_beta1"]["axolotl"] == "adam_beta1"
    assert found["training.galore.rank"]["axolotl"] == "no"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="no public configurations here")
def test_public_configurations() -> None:
    from tools.corpus import measure

    begin = time.perf_counter()
    figures = measure(CORPUS)
    assert time.perf_counter() - begin < 60
    assert not figures["crashes"]
    for row in figures["backends"].values():
        assert row["exact_share"] >= 0.97
        assert row["neutral_share"] >= 0.9
