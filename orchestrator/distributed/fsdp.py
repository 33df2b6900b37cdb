"""FSDP: the variables that accelerate reads, and the accelerate configuration for one's own launch.

Both backends leave FSDP to accelerate, which reads `FSDP_*` variables. axolotl sets most of them
itself; LLaMA-Factory expects `accelerate launch --config_file`, and what its own `fsdp_config`
names is partly dropped: the trainer hands no state-dict type on, and accelerate's default for
FSDP 2 is sharded, so the final folder would have no weights (accelerate 1.11 and 1.13,
`FullyShardedDataParallelPlugin.set_state_dict_type`). Nor does either hand on FSDP 1's sharding
strategy. So a run sets the variables, and torchrun starts it like everything else.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.recipe.models import Fsdp, Recipe

STRATEGIES = ("full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2", "no_shard")
"""Of FSDP 1, among `distributed.fsdp.options`."""

STATES = ("FULL_STATE_DICT", "SHARDED_STATE_DICT", "LOCAL_STATE_DICT")
VALUES: dict[str, tuple[int | str, ...]] = {
    "version": (1, 2),
    "wrap": ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"),
    "state_dict": STATES,
    "final_state_dict": STATES,
}
"""What accelerate takes for fields of `distributed.fsdp`."""


def settings(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says of FSDP, with ft's defaults where it says nothing, by accelerate's name.

    The whole state is saved (`FULL_STATE_DICT`), since that is what merges, exports and loads.
    """
    spread, named = recipe.distributed, recipe.distributed.fsdp or Fsdp()
    version = version_of(recipe)
    offload = spread.offload != "none" or "offload" in (named.options or ())
    offload = _given(named.offload, offload)
    quantized = recipe.model.quantization == "nf4"
    found: dict[str, Any] = {
        "version": version,
        "state_dict_type": named.state_dict or "FULL_STATE_DICT",
        "auto_wrap_policy": named.wrap or "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": named.wrap_class,
        "min_num_params": named.min_parameters,
        "offload_params": offload,
        "cpu_ram_efficient_loading": _given(named.load_on_first, not quantized),
        "activation_checkpointing": named.checkpoint_activations,
    }
    if version == 2:
        kept = "shard_grad_op" in (named.options or ())
        found["reshard_after_forward"] = _given(named.reshard, not kept)
        return _said(found)
    given = [option for option in named.options or () if option in STRATEGIES]
    found |= {
        "sharding_strategy": (given[0] if given else "full_shard").upper(),
        "use_orig_params": _given(named.original_parameters, True),
        "sync_module_states": _given(named.sync_states, True),
    }
    return _said(found)


def version_of(recipe: Recipe) -> int:
    """FSDP 2, unless the recipe has a section of its own: without a version both backends and
    accelerate take that for FSDP 1."""
    named = recipe.distributed.fsdp
    return 2 if named is None else named.version or 1


def in_parts(recipe: Recipe) -> str:
    """The field that leaves the final model in parts; empty where it is whole.

    axolotl saves the last state in a type of its own, if asked.
    """
    spread, named = recipe.distributed, recipe.distributed.fsdp
    if spread.strategy != "fsdp" or named is None:
        return ""
    own = recipe.backend == "axolotl"
    last = named.final_state_dict if own and named.final_state_dict else named.state_dict
    if last in (None, "FULL_STATE_DICT"):
        return ""
    return "distributed.fsdp." + ("final_state_dict" if own else "state_dict")


def variables(recipe: Recipe) -> dict[str, str]:
    """The variables of the training processes; none without FSDP."""
    if recipe.distributed.strategy != "fsdp":
        return {}
    named = {RENAMED.get(name, name): value for name, value in settings(recipe).items()}
    return {
        "ACCELERATE_USE_FSDP": "true",
        **{f"FSDP_{name.upper()}": _text(value) for name, value in named.items()},
    }


RENAMED = {"transformer_layer_cls_to_wrap": "transformer_cls_to_wrap"}
"""Where the variable is not called like the setting."""


def accelerate_config(recipe: Recipe, processes: int, dtype: str) -> dict[str, Any]:
    """The file for `accelerate launch --config_file`; another node says its own `machine_rank`."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP",
        "fsdp_config": {f"fsdp_{name}": value for name, value in settings(recipe).items()},
        "main_training_function": "main",
        "mixed_precision": {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "no"),
        "num_machines": recipe.distributed.nodes,
        "num_processes": processes,
        "machine_rank": 0,
    }


def _given(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
