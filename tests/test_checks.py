"""Each rule fires on its mistake and is silent on the sound recipe."""

from typing import Any

import pytest

from orchestrator.checks import check
from tests.helpers import loaded


def codes(**changes: Any) -> dict[str, str]:
    return {finding.code: finding.level for finding in check(loaded(**changes))}


def test_sound_recipe_is_silent() -> None:
    assert codes() == {}


CHAT = [{"path": "user/data", "format": "messages"}]

MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("FT201", {"training.epochs": None}),
    ("FT201", {"training.steps": 5}),
    ("FT202", {"training.warmup_ratio": 0.1, "training.warmup_steps": 5}),
    ("FT202", {"training.epochs": None, "training.steps": 5, "training.warmup_steps": 5}),
    ("FT203", {"model.quantization": "nf4", "adapter.type": "none"}),
    ("FT205", {"model.base": "TheBloke/Mistral-7B-GPTQ"}),
    ("FT205", {"model.base": "unsloth/llama-3-8b-bnb-4bit"}),
    ("FT205", {"model.base": "Qwen/Qwen2.5-7B-Instruct-AWQ", "adapter.type": "none"}),
    ("FT206", {"training.stage": "dpo"}),
    ("FT207", {"data.sources": [{"path": "a/b", "format": "alpaca",
                                 "columns": {"chosen": "x"}}]}),
    ("FT207", {"data.sources": [{"path": "a/b", "format": "alpaca", "roles": {"user": "x"}}]}),
    ("FT208", {"data.sources": CHAT, "data.chat_template": "llama33"}),
    ("FT210", {"data.sources": CHAT}),
    ("FT210", {"data.chat_template": "tokenizer"}),
    ("FT211", {"data.validation": 0.1, "training.evaluate": "epoch",
               "data.validation_sources": [{"path": "a/b", "format": "alpaca"}]}),
    ("FT211", {"data.validation": 1.5, "training.evaluate": "epoch"}),
    ("FT212", {"training.evaluate": "epoch"}),
    ("FT213", {"training.early_stopping": 2}),
    ("FT213", {"training.early_stopping": 2, "data.validation": 9, "training.evaluate": 20,
               "training.save": 30}),
    ("FT213", {"training.early_stopping": 2, "data.validation": 9, "training.evaluate": 20}),
    ("FT214", {"distributed.zero_stage": 3}),
    ("FT214", {"distributed.offload": "optimizer"}),
    ("FT214", {"distributed.gpus": 4}),
    ("FT215", {"distributed.strategy": "deepspeed", "distributed.offload": "all"}),
    ("FT215", {"distributed.strategy": "deepspeed", "distributed.zero_stage": 3,
               "model.quantization": "int8"}),
    ("FT215", {"distributed.strategy": "deepspeed", "distributed.offload": "optimizer",
               "training.optimizer": "adamw_bnb_8bit"}),
    ("FT216", {"output.push_to_hub": "a/b", "output.export": False}),
    ("FT216", {"output.push_to_hub": "nope"}),
    ("FT218", {"native.axolotl": {"sequence_lne": 5}}),
    ("FT218", {"native.llamafactory": {"lora_rnak": 5}}),
    ("FT202", {"training.warmup_ratio": 1.0}),
    ("FT223", {"model.attention": "flash_attention_2", "model.dtype": "float32"}),
    ("FT401", {"data.train_on": "last_assistant", "data.sources": CHAT,
               "data.chat_template": "llama3"}),
    ("FT401", {"backend": "llamafactory", "data.overlong": "drop"}),
    ("FT401", {"backend": "llamafactory", "data.stop_tokens": ["</s>"]}),
    ("FT248", {"training.on_oom": "retry", "training.batch_search": True}),
    ("FT249", {"training.stage": "kto"}),
    ("FT241", {"native.axolotl": {"output_dir": "x"}}),
    ("FT241", {"native.llamafactory": {"hf_hub_token": "x"}}),
    ("FT401", {"backend": "llamafactory", "adapter.alpha": 0.5}),
    ("FT601", {"adapter.alpha": 0.5}),
    ("FT401", {"data.sources": CHAT, "data.chat_template": "llama3", "data.default_system": "x"}),
    ("FT401", {"backend": "llamafactory", "data.sources": [{"path": "a/b", "format": "text"}]}),
    ("FT401", {"backend": "llamafactory", "data.validation_sources": [
        {"path": "a/b", "format": "alpaca", "revision": "main"}], "training.evaluate": "epoch"}),
    ("FT402", {"training.stage": "kto", "data.sources": [{"path": "a/b", "format": "kto"}],
               "data.chat_template": "llama3", "training.learning_rate": 1e-6}),
    ("FT403", {"training.stage": "dpo", "data.chat_template": "llama3",
               "data.sources": [{"path": "a/b", "format": "preference", "subset": "x"}]}),
    ("FT404", {"backend": "llamafactory", "data.sources": CHAT, "data.train_on": "all",
               "data.chat_template": "glm4"}),
    ("FT404", {"training.stage": "dpo", "data.packing": True,
               "data.sources": [{"path": "a/b", "format": "preference"}],
               "data.chat_template": "llama3"}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "changes"), MISTAKES)
def test_mistake_is_an_error(code: str, changes: dict[str, Any]) -> None:
    assert codes(**changes).get(code) == "error"


WARNINGS: list[tuple[str, dict[str, Any]]] = [
    ("FT204", {"adapter.type": "none", "adapter.rank": 4, "training.learning_rate": 1e-5}),
    ("FT212", {"data.validation": 0.1}),
    ("FT217", {"tracking.project": "x"}),
    ("FT219", {"adapter.type": "none", "training.learning_rate": 1e-3}),
    ("FT219", {"training.learning_rate": 1e-2}),
    ("FT202", {"training.warmup_ratio": 0.6}),
    ("FT222", {"data.sources": CHAT, "data.chat_template": "llama3"}),
    ("FT222", {"data.sources": CHAT, "data.chat_template": "tokenizer"}),
    ("FT226", {"data.validation": 0.9, "training.evaluate": "epoch"}),
    (
        "FT228",
        {
            "training.epochs": None,
            "training.steps": 50,
            "training.evaluate": 60,
            "data.validation": 9,
        },
    ),
    ("FT229", {"training.scheduler": "constant", "training.warmup_ratio": 0.1}),
]


@pytest.mark.parametrize(("code", "changes"), WARNINGS)
def test_doubtful_setting_is_a_warning(code: str, changes: dict[str, Any]) -> None:
    assert codes(**changes) == {code: "warning"}


SOUND: list[dict[str, Any]] = [
    {"model.quantization": "nf4"},
    {"model.base": "user/quantum-gguffaw-7b"},
    {"model.base": "TheBloke/Mistral-7B-GPTQ", "output.merge": False},
    {"data.validation": 9, "training.evaluate": 20, "training.save": 40,
     "training.early_stopping": 2},
    {"distributed.strategy": "deepspeed", "distributed.zero_stage": 3,
     "distributed.offload": "all"},
    {"data.sources": CHAT, "data.chat_template": "llama3",
     "model.base": "meta-llama/Meta-Llama-3-8B-Instruct"},
    {"data.sources": CHAT, "data.chat_template": "chatml", "model.base": "Qwen/Qwen2.5-7B"},
    {"data.sources": CHAT, "data.chat_template": "tokenizer", "model.base": "Qwen/Qwen2.5-7B"},
    {"data.sources": CHAT, "data.chat_template": "tokenizer", "model.base": "me/my-own-7B"},
    {"training.epochs": None, "training.steps": 50, "training.evaluate": 50,
     "data.validation": 9, "training.warmup_steps": 5},
    {"training.scheduler": "constant_with_warmup", "training.warmup_ratio": 0.1},
    {"model.attention": "flash_attention_2"},
    {"data.validation": 0.5, "training.evaluate": "epoch"},
    {"native.axolotl": {"sequence_len": 5}},
    {"backend": "llamafactory", "native.llamafactory": {"lora_rank": 5}},
]  # fmt: skip


@pytest.mark.parametrize("changes", SOUND)
def test_sound_settings_are_silent(changes: dict[str, Any]) -> None:
    assert codes(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"training.learning_rate": 1e-3}, "above"),
        ({"training.learning_rate": 1e-6}, "below"),
        ({"training.learning_rate": 1e-4, "adapter.type": "none"}, "above"),
    ],
)
def test_learning_rate_far_from_the_rule_is_told_with_the_numbers(
    changes: dict[str, Any], word: str
) -> None:
    (finding,) = check(loaded(**changes))
    assert (finding.code, finding.level) == ("FT219", "note")
    assert f"far {word} the usual" in finding.message
    assert "2,048 tokens per step: 0.0003 * sqrt(2,048 / 4,000,000)" in finding.message


def test_findings_stand_at_their_field() -> None:
    found = check(loaded(**{"model.quantization": "nf4", "adapter.type": "none"}))
    assert str(found[0].place).startswith("recipe.yaml:")
    assert found[0].field == "model.quantization"
    assert found[0].fix
