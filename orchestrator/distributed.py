"""DeepSpeed configurations from one typed builder, for runs and for `deepspeed_configs/`."""

import json
from typing import Any

from orchestrator.recipe.models import Recipe

SHIPPED: dict[str, tuple[int, str]] = {
    "ds_z1": (1, "none"),
    "ds_z2": (2, "none"),
    "ds_z2_offload": (2, "optimizer"),
    "ds_z3": (3, "none"),
    "ds_z3_offload": (3, "all"),
}
"""Name of each shipped file -> ZeRO stage and what is offloaded."""


def deepspeed_config(
    stage: int, *, offload: str = "none", dtype: str = "bfloat16", pin_memory: bool = True
) -> dict[str, Any]:
    """A DeepSpeed configuration for ZeRO `stage` (1, 2 or 3).

    Batch sizes and clipping are `auto`, so that the trainer's own values hold. The precision is
    explicit: `auto` under stage 3 loads float32 weights when the trainer's flag is unset (axolotl
    PR 1466). The optimizer stays the recipe's own even under offload
    (`zero_force_ds_cpu_optimizer: false`); accelerate would otherwise put DeepSpeedCPUAdam in its
    place, which needs a compiler and drops 8-bit states.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": False,  # true needs further communication buffers on the GPU
        "contiguous_gradients": True,
    }
    if stage >= 2:
        zero["reduce_scatter"] = True
    if stage == 3:
        zero |= {
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            # without it the saved model has no weights, and the run still exits 0
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    device = {"device": "cpu", "pin_memory": pin_memory}
    if offload in ("optimizer", "all"):
        zero["offload_optimizer"] = device
    if offload == "all" and stage == 3:
        zero["offload_param"] = device
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "zero_optimization": zero,
    }


def for_recipe(recipe: Recipe, dtype: str, *, cpu: bool = False) -> dict[str, Any]:
    """The configuration of a recipe; `dtype` is what the run computes in."""
    return deepspeed_config(
        recipe.distributed.zero_stage,
        offload=recipe.distributed.offload,
        dtype=dtype,
        pin_memory=not cpu,
    )


def as_text(config: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(config, indent=2) + "\n"


def shipped_files() -> dict[str, str]:
    """What `deepspeed_configs/` must contain: file name -> text."""
    return {
        f"{name}.json": as_text(deepspeed_config(stage, offload=offload))
        for name, (stage, offload) in SHIPPED.items()
    }
