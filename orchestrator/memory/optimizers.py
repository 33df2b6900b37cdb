"""Bytes of optimizer state per trained parameter, and what a step needs for a moment.

torch optimizers keep states in the parameter's own type (`torch.zeros_like`); bitsandbytes keeps
32-bit states in float32 and 8-bit ones in one byte with a float32 scale per 256 values. For 8-bit
optimizers transformers registers embeddings with 32-bit states (`Trainer.create_optimizer`).
"""

from dataclasses import dataclass
from typing import Literal

Store = Literal["own", "float32", "8bit", "4bit", "factored", "projected", "none", "muon"]

BNB_8BIT = 1 + 4 / 256
TORCH_4BIT = 0.5 + 4 / 128


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`states` values per parameter, stored as `store`; `temporary`: a torch `foreach` step makes a
    copy as large as one state. `paged` states may move to host memory."""

    states: float
    store: Store = "own"
    temporary: bool = False
    paged: bool = False
    known: bool = True

    def per_parameter(self, own: int) -> float:
        """Bytes per parameter that is held in `own` bytes."""
        match self.store:
            case "own" | "muon" | "projected":
                return self.states * own
            case "float32":
                return self.states * 4
            case "8bit":
                return self.states * BNB_8BIT
            case "4bit":
                return self.states * TORCH_4BIT
            case "factored" | "none":
                return 0.0


ADAM = Optimizer(2, "own", temporary=True)
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw_torch": ADAM,
    "adamw_hf": ADAM,
    "adamw_torch_fused": Optimizer(2),
    "adamw_torch_xla": ADAM,
    "adamw_torch_npu_fused": Optimizer(2),
    "adamw_apex_fused": Optimizer(2, "float32"),
    "adamw_anyprecision": Optimizer(2, "own", temporary=True),
    "adamw_torch_8bit": Optimizer(2, "8bit"),
    "adamw_torch_4bit": Optimizer(2, "4bit"),
    "adamw_bnb_8bit": Optimizer(2, "8bit"),
    "adamw_8bit": Optimizer(2, "8bit"),
    "paged_adamw_8bit": Optimizer(2, "8bit", paged=True),
    "paged_adamw_32bit": Optimizer(2, "float32", paged=True),
    "paged_adamw": Optimizer(2, "float32", paged=True),
    "ademamix": Optimizer(3, "float32"),
    "ademamix_8bit": Optimizer(3, "8bit"),
    "paged_ademamix_32bit": Optimizer(3, "float32", paged=True),
    "paged_ademamix_8bit": Optimizer(3, "8bit", paged=True),
    "lion_32bit": Optimizer(1, "float32"),
    "lion_8bit": Optimizer(1, "8bit"),
    "paged_lion_32bit": Optimizer(1, "float32", paged=True),
    "paged_lion_8bit": Optimizer(1, "8bit", paged=True),
    "lion_pytorch": Optimizer(1),
    "adafactor": Optimizer(0, "factored", temporary=True),
    "came_pytorch": Optimizer(1, "own", temporary=True),
    "sgd": Optimizer(0, "none"),
    "adagrad": Optimizer(1, "own", temporary=True),
    "rmsprop": Optimizer(1, "own", temporary=True),
    "rmsprop_bnb": Optimizer(1, "float32"),
    "rmsprop_bnb_32bit": Optimizer(1, "float32"),
    "rmsprop_bnb_8bit": Optimizer(1, "8bit"),
    "galore_adamw": Optimizer(2, "projected"),
    "galore_adamw_layerwise": Optimizer(2, "projected"),
    "galore_adamw_8bit": Optimizer(0.5, "projected"),
    "galore_adamw_8bit_layerwise": Optimizer(0.5, "projected"),
    "galore_adafactor": Optimizer(0, "projected"),
    "galore_adafactor_layerwise": Optimizer(0, "projected"),
    "apollo_adamw": Optimizer(2, "projected"),
    "apollo_adamw_layerwise": Optimizer(2, "projected"),
    "lomo": Optimizer(0, "none"),
    "adalomo": Optimizer(0, "factored"),
    "grokadamw": Optimizer(3, "own", temporary=True),
    "stable_adamw": Optimizer(2, "own", temporary=True),
    "schedule_free_adamw": Optimizer(2, "own", temporary=True),
    "schedule_free_radam": Optimizer(2, "own", temporary=True),
    "schedule_free_sgd": Optimizer(1),
    "optimi_adamw": Optimizer(2),
    "ao_adamw_8bit": Optimizer(2, "8bit"),
    "ao_adamw_4bit": Optimizer(2, "4bit"),
    "ao_adamw_fp8": Optimizer(2, "8bit"),
    "adopt_adamw": Optimizer(2, "own", temporary=True),
    "muon": Optimizer(1, "muon", temporary=True),
    "dion": Optimizer(1, "muon", temporary=True),
    "adam_mini": Optimizer(1, "own", temporary=True),
}
"""Optimizers by the names that recipes use."""

LAYERWISE = ("galore_adamw_layerwise", "galore_adamw_8bit_layerwise",
             "galore_adafactor_layerwise", "apollo_adamw_layerwise", "lomo", "adalomo")  # fmt: skip
"""Optimizers that update in the backward pass, so that gradients live for one layer only."""


def optimizer(name: str) -> Optimizer:
    """The optimizer of that name; one that is not known is taken for Adam with float32 states."""
    return OPTIMIZERS.get(name) or Optimizer(2, "float32", temporary=True, known=False)
