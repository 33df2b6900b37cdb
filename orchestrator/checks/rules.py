"""Rules on a rendered configuration: what the backend would refuse, or do otherwise in silence.

They are tables (`axolotl_rules`, `llamafactory_rules`): each is one condition on a few keys. A
number is that of the project's notes on the pinned release (A13 is `FT613`, L22 is `FT722`; what
neither backend says before it trains has 60 added: N27 is `FT687` or `FT787`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.findings import Finding, Level

Config = Mapping[str, Any]

PROCESSES = "processes"
"""Beside the configuration's own keys: how many processes train."""

FIELDS = {
    "adapter": "adapter.type", "attn_implementation": "model.attention", "bf16": "model.dtype",
    "chat_template": "data.chat_template", "cutoff_len": "data.sequence_length",
    "datasets": "data.sources", "deepspeed": "distributed.strategy",
    "early_stopping_patience": "training.early_stopping", "eval_steps": "training.evaluate",
    "eval_strategy": "training.evaluate", "finetuning_type": "adapter.type",
    "flash_attn": "model.attention", "fsdp_config": "distributed.strategy",
    "fsdp_version": "distributed.strategy", "gradient_checkpointing":
    "training.gradient_checkpointing", "learning_rate": "training.learning_rate",
    "load_in_4bit": "model.quantization", "load_in_8bit": "model.quantization",
    "lora_alpha": "adapter.alpha", "lora_r": "adapter.rank", "loraplus_lr_ratio":
    "adapter.loraplus_ratio", "max_steps": "training.steps", "neat_packing": "data.packing",
    "optim": "training.optimizer", "optimizer": "training.optimizer", "packing": "data.packing",
    "pref_loss": "training.preference.loss", "quantization_bit": "model.quantization",
    "rl": "training.stage", "sample_packing": "data.packing", "save_steps": "training.save",
    "save_strategy": "training.save", "stage": "training.stage", "template": "data.chat_template",
    "trust_remote_code": "model.trust_remote_code", "val_set_size": "data.validation",
    "val_size": "data.validation", "warmup_ratio": "training.warmup_ratio",
    "warmup_steps": "training.warmup_steps",
}  # fmt: skip
"""The recipe's field behind a key, where there is one."""


class Rule(NamedTuple):
    """One condition; `keys` are those it is about, the first one given by the user is blamed."""

    number: int
    keys: tuple[str, ...]
    wrong: Callable[[Config], Any]
    message: str
    fix: str = ""
    level: Level = "error"


def broken(
    rules: Sequence[Rule], config: Config, *, series: int, given: Mapping[str, str]
) -> Iterator[Finding]:
    """A finding per rule that `config` breaks."""
    for rule in rules:
        try:
            wrong = bool(rule.wrong(config))
        except (
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
        ):  # a value of a type that nobody expects
            wrong = False
        if wrong:
            yield Finding(
                f"FT{series + rule.number}",
                rule.level,
                rule.message,
                field=field_of(rule.keys, given),
                fix=rule.fix,
            )


def field_of(keys: Sequence[str], given: Mapping[str, str]) -> str:
    """The field to blame: one that the user gave for a key, else the recipe's own."""
    for key in keys:
        if key in given:
            return given[key]
    return next((FIELDS[key] for key in keys if key in FIELDS), "")


def number(config: Config, key: str) -> float:
    """A numeric value; 0 where there is none."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value


def on(config: Config, *keys: str) -> int:
    """How many of the keys are set to something."""
    return sum(bool(config.get(key)) for key in keys)
