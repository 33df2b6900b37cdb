"""The keys that the installed DeepSpeed reads and what they take, as JSON on stdout.

Runs in a backend environment. The top of a configuration is read key by key all over DeepSpeed, so
a mapping that notes what it is asked for is handed in; its sections are pydantic models, which know
their own names and types.
"""

import json
import sys
from collections.abc import KeysView
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin


class Noted(dict[str, Any]):
    """A mapping that remembers every key that it was asked for."""

    asked: ClassVar[set[str]] = {"eigenvalue", "sequence_parallel_size"}
    """Begins with those that are asked for under a condition only."""

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def keys(self) -> Any:
        return KeysView(self)

    def __copy__(self) -> "Noted":
        return Noted(self)


def takes(annotation: Any) -> Any:
    """A type in a word, or the values of an enumeration."""
    choices = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) in (Union, UnionType):
        return takes(choices[0]) if len(choices) == 1 else "any"
    kind = get_origin(annotation) or annotation
    if issubclass(kind, Enum):
        return sorted({one.value for one in kind})
    words = {bool: "switch", int: "whole", float: "number", str: "text", Path: "text"}
    return words.get(kind, "list" if kind is list else "section")


def fields(model: Any) -> dict[str, Any]:
    """Each name of a section, older ones too, and what it takes."""
    found = {
        name: takes(field.annotation)
        for key, field in model.model_fields.items()
        for name in {key, field.alias or key}
    }
    return dict(sorted(found.items()))


def main() -> None:
    """Print section -> key -> what it takes; "" is the top, where nothing is typed."""
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )

    DeepSpeedConfig(Noted(train_batch_size=1))
    found = {
        "": dict.fromkeys(sorted(Noted.asked), "any"),
        "bf16": fields(DeepSpeedBF16Config),
        "fp16": fields(DeepSpeedFP16Config),
        "zero_optimization": fields(DeepSpeedZeroConfig),
        "zero_optimization.offload_optimizer": fields(DeepSpeedZeroOffloadOptimizerConfig),
        "zero_optimization.offload_param": fields(DeepSpeedZeroOffloadParamConfig),
    }
    sys.stdout.write("KEYS " + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
