"""Checks that look at this machine or at the number of rows."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.checks import machine
from orchestrator.checks.counts import from_rows
from orchestrator.checks.packages import COMPRESSOR, packages
from orchestrator.environments import registry
from orchestrator.environments.environment import Environment
from orchestrator.environments.registry import variable
from orchestrator.findings import Finding
from orchestrator.problems import find_problems
from tests.helpers import loaded, write_recipe

CHAT = {
    "data.sources": [{"path": "user/data", "format": "messages"}],
    "data.chat_template": "tokenizer",
}


class Usage(NamedTuple):
    free: int


def look(beside: Path, **changes: Any) -> list[Finding]:
    return list(machine.look(loaded(**changes).recipe, beside))


def codes(found: list[Finding]) -> dict[str, str]:
    return {finding.code: finding.level for finding in found}


def model(folder: Path, **files: Any) -> str:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    for name, content in files.items():
        (base / f"{name}.json").write_text(json.dumps(content))
    return str(base)


def test_sequence_longer_than_the_model(tmp_path: Path) -> None:
    base = model(tmp_path)
    assert codes(look(tmp_path, **{"model.base": base})) == {}
    found = look(tmp_path, **{"model.base": base, "data.sequence_length": 8192})
    assert codes(found) == {"FT221": "error"}
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({"text_config": {"max_position_embeddings": 1024}})
    )
    assert codes(look(tmp_path, **{"model.base": base})) == {"FT221": "error"}


def test_template_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    base = model(tmp_path, tokenizer_config={"eos_token": "</s>"})
    assert codes(look(tmp_path, **CHAT, **{"model.base": base})) == {"FT222": "error"}
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    assert codes(look(tmp_path, **CHAT, **{"model.base": base})) == {}


def test_stop_token_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    base = model(tmp_path, tokenizer={"added_tokens": [{"content": "<|eot_id|>"}]})
    changes = {**CHAT, "model.base": base}
    assert codes(look(tmp_path, **{**changes, "data.chat_template": "llama3"})) == {}
    found = look(tmp_path, **{**changes, "data.chat_template": "chatml"})
    assert codes(found) == {"FT222": "error"}
    assert "<|im_end|>" in found[0].message


@pytest.mark.parametrize(
    ("base", "fix"),
    [
        ("Qwen/Qwen2.5 3B", "Qwen/Qwen2.5-3B"),
        ("https://hub.example/Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B"),
        ("Qwen\\Qwen2.5-3B", "Qwen/Qwen2.5-3B"),
        ("./models/none", "give a folder"),
    ],
)
def test_base_that_is_neither_there_nor_a_hub_id(tmp_path: Path, base: str, fix: str) -> None:
    (finding,) = look(tmp_path, **{"model.base": base})
    assert (finding.code, finding.level) == ("FT220", "error")
    assert fix in finding.fix


def test_path_misspelled_so_that_it_reads_as_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert codes(look(tmp_path, **{"model.base": "models/llama"})) == {"FT220": "warning"}
    assert codes(look(tmp_path, **{"model.base": "Qwen/Qwen2.5-3B"})) == {}


def test_wandb_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    tracked = {"tracking.type": "wandb"}
    assert codes(look(tmp_path, **tracked)) == {"FT231": "warning"}
    assert codes(look(tmp_path)) == {}
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert codes(look(tmp_path, **tracked)) == {}
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_text("machine api.wandb.example login x password y")
    assert codes(look(tmp_path, **tracked)) == {}


def test_checkpoints_that_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model(tmp_path)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"0" * 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000))
    full = {"model.base": base, "adapter.type": "none"}
    assert codes(look(tmp_path, **full)) == {"FT232": "warning"}
    assert codes(look(tmp_path, **full, **{"training.save": "never"})) == {}
    assert codes(look(tmp_path, **{"model.base": base})) == {}


ZERO3 = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
DEEPSPEED: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"zero_optimization": ZERO3}, {}),
    ({"zero_optimization": {"stage": 2}}, {}),
    ({"zero_optimization": {"stage": 3}}, {"FT234": "error"}),
    ({"bf16": {"enabled": "auto"}, "zero_optimization": ZERO3}, {}),
    ({"bf16": {"enabled": True}, "zero_optimization": ZERO3}, {}),
    ({"bf16": {"enabled": True}}, {"FT234": "error"}),
    ({"bf16": {"enabled": False}, "zero_optimization": ZERO3}, {"FT234": "error"}),
    ({"fp16": {"enabled": True}, "zero_optimization": ZERO3}, {"FT234": "error"}),
    ({"zero_optimization": {**ZERO3, "offload_optimizer": {"device": "cpu"}}},
     {"FT234": "warning"}),
    ({"zero_optimization": {**ZERO3, "offload_optimizer": {"device": "cpu"}},
      "zero_force_ds_cpu_optimizer": False}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), DEEPSPEED)
def test_deepspeed_file_of_the_user(
    tmp_path: Path, config: Mapping[str, Any], expected: dict[str, str]
) -> None:
    (tmp_path / "ds.json").write_text(json.dumps(config))
    assert codes(look(tmp_path, **{"native.axolotl": {"deepspeed": "ds.json"}})) == expected


def test_deepspeed_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[1]")
    for name in ("bad.json", "none.json"):
        found = look(tmp_path, **{"native.axolotl": {"deepspeed": name}})
        assert codes(found) == {"FT234": "error"}


def test_pad_token_that_hides_the_end(tmp_path: Path) -> None:
    base = model(tmp_path, tokenizer_config={"eos_token": {"content": "</s>"}})
    text = {"data.sources": [{"path": "a/b", "format": "text"}], "training.stage": "pretrain",
            "model.base": base}  # fmt: skip
    assert codes(look(tmp_path, **text, backend="llamafactory")) == {"FT225": "warning"}
    assert codes(look(tmp_path, **text)) == {}


EVALUATED = {"training.evaluate": "epoch"}
COUNTS: list[tuple[int, dict[str, Any], dict[str, str]]] = [
    (100, {}, {}),
    (100, {"data.validation": 0.02, **EVALUATED}, {}),
    (40, {"data.validation": 0.02, **EVALUATED}, {"FT226": "error"}),
    (40, {"data.validation": 40, **EVALUATED}, {"FT226": "error"}),
    (40, {"data.validation": 0.999, **EVALUATED}, {"FT226": "error"}),
    (100, {"data.validation": 0.02, **EVALUATED, "distributed.strategy": "ddp",
           "distributed.gpus": 4}, {"FT226": "warning"}),
    (100, {"training.warmup_steps": 99}, {}),
    (100, {"training.warmup_steps": 100}, {"FT202": "error"}),
    (100, {"training.warmup_steps": 100, "data.packing": True}, {}),
    (100, {"training.warmup_steps": 150, "training.epochs": 2}, {}),
    (100, {"training.warmup_steps": 50, "training.micro_batch_size": 2}, {"FT202": "error"}),
    (100, {"training.evaluate": 101, "data.validation": 2}, {"FT228": "warning"}),
    (100, {"training.save": 101}, {"FT228": "note"}),
    (100, {"training.save": 100}, {}),
    (10, {"training.gradient_accumulation": 16}, {"FT227": "warning"}),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "changes", "expected"), COUNTS)
def test_number_of_rows(rows: int, changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert codes(list(from_rows(loaded(**changes).recipe, rows))) == expected


def test_rows_of_local_data_are_counted(tmp_path: Path) -> None:
    from orchestrator.recipe.load import load

    (tmp_path / "d.jsonl").write_text('{"instruction": "a", "output": "b"}\n' * 10)
    entry = {"path": "d.jsonl", "format": "alpaca"}
    file = write_recipe(
        tmp_path / "r.yaml", **{"data.sources": [entry], "training.warmup_steps": 10}
    )
    (finding,) = find_problems(load(file))
    assert finding.code == "FT202"
    assert "10 rows" in finding.message
    assert finding.place


PACKAGES: list[tuple[str, dict[str, Any]]] = [
    ("axolotl", {"context_parallel_size": 2, "attn_implementation": "flash_attention_2"}),
    ("axolotl", {"plugins": [COMPRESSOR]}),
    ("llamafactory", {"finetuning_type": "full", "use_badam": True}),
    ("llamafactory", {"enable_liger_kernel": True}),
    ("llamafactory", {"use_unsloth": True}),
]


@pytest.mark.parametrize(("backend", "native"), PACKAGES)
def test_a_package_that_the_environment_lacks_is_told(
    backend: str, native: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_HOME", str(tmp_path))
    monkeypatch.delenv(variable(backend), raising=False)
    (finding,) = packages(loaded(backend=backend, **{f"native.{backend}": native}).recipe)
    assert (finding.code, finding.level) == ("FT243", "error")
    assert finding.field.startswith(f"native.{backend}.")
    assert list(packages(loaded(backend=backend).recipe)) == []


@pytest.mark.parametrize(
    ("backend", "optimizer", "told"),
    [
        ("axolotl", "galore_adamw", True),
        ("axolotl", "lomo", True),
        ("axolotl", "schedule_free_adamw", False),
        ("axolotl", "adamw_torch_8bit", False),
        ("llamafactory", "schedule_free_adamw", True),
        ("llamafactory", "adamw_torch_8bit", True),
        ("llamafactory", "adamw_bnb_8bit", False),
    ],
)
def test_an_optimizer_of_a_package_that_is_not_there(
    backend: str, optimizer: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_HOME", str(tmp_path))
    monkeypatch.delenv(variable(backend), raising=False)
    asked = loaded(backend=backend, **{"training.optimizer": optimizer}).recipe
    found = [(finding.code, finding.field) for finding in packages(asked)]
    assert found == ([("FT243", "training.optimizer")] if told else [])


def test_a_package_in_the_environment_in_use_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "lib" / "python3.11" / "site-packages" / "galore_torch-1.0.dist-info"
    there.mkdir(parents=True)
    used = Environment("llamafactory", tmp_path, tmp_path / "python", "prefix", "0.9.5")
    monkeypatch.setattr(registry, "resolve", lambda backend: used)
    native = {"finetuning_type": "full", "use_galore": True}
    recipe = loaded(backend="llamafactory", **{"native.llamafactory": native}).recipe
    assert list(packages(recipe)) == []
