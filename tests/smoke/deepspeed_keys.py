"""The keys that the installed DeepSpeed reads, as JSON on stdout; runs in a backend environment.

The top of a configuration is read key by key all over DeepSpeed, so a mapping that notes what it is
asked for is handed in; its sections are pydantic models, which know their own names.
"""

import json
import sys
from collections.abc import KeysView
from typing import Any, ClassVar


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


def main() -> None:
    """Print section -> keys; "" is the top."""
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )

    DeepSpeedConfig(Noted(train_batch_size=1))

    def names(model: Any) -> list[str]:
        both = {(name, field.alias or name) for name, field in model.model_fields.items()}
        return sorted({name for pair in both for name in pair})

    found = {
        "": sorted(Noted.asked),
        "zero_optimization": names(DeepSpeedZeroConfig),
        "zero_optimization.offload_optimizer": names(DeepSpeedZeroOffloadOptimizerConfig),
        "zero_optimization.offload_param": names(DeepSpeedZeroOffloadParamConfig),
    }
    sys.stdout.write("KEYS " + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
