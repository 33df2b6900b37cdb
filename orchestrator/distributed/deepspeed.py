"""DeepSpeed configurations from one typed builder, for runs and for `deepspeed_configs/`.

Each field says why it has its value; `deepspeed_configs/README.md` is made of these texts. What is
not here is left to DeepSpeed's own default.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.backends.base import Paths, RenderedFile, Target
from orchestrator.distributed.own_file import patched
from orchestrator.recipe.models import Recipe

Auto = Literal["auto"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Switch(_Part):
    """A precision, on or off."""

    enabled: bool = Field(
        description="explicit: `auto` under stage 3 loads float32 weights where the trainer's flag "
        "is unset (axolotl PR 1466)"
    )


class Offload(_Part):
    """Where a part of the state is held instead of on the GPU."""

    device: Literal["cpu", "nvme"] = Field(description="host memory, or a disk")
    pin_memory: bool = Field(
        description="pinned pages copy faster and cannot be swapped out; false on a machine "
        "without a GPU"
    )
    nvme_path: str | None = Field(None, description="a fast disk of the node, `distributed.nvme`")


class Aio(_Part):
    """How the disk is read and written, for `nvme`."""

    block_size: int = Field(1 << 20, description="bytes per request")
    queue_depth: int = Field(8, description="requests that wait at the device")
    single_submit: bool = Field(False, description="hand requests over in groups")
    overlap_events: bool = Field(True, description="go on while requests are served")


class Zero(_Part):
    """ZeRO: what is spread over the GPUs instead of being held by each."""

    stage: Literal[1, 2, 3] = Field(
        description="1 spreads the optimizer states, 2 the gradients too, 3 the weights too"
    )
    overlap_comm: bool = Field(
        False,
        description="true hides some communication, for another set of buffers on the GPU; false "
        "is the same result with less memory",
    )
    contiguous_gradients: bool = Field(True, description="no fragmentation in the backward pass")
    reduce_scatter: bool | None = Field(
        None, description="each GPU gets only its part of the gradients, not all of them"
    )
    reduce_bucket_size: Auto | None = Field(
        None, description="from the hidden size, so it fits small and large models"
    )
    stage3_prefetch_bucket_size: Auto | None = Field(None, description="from the hidden size")
    stage3_param_persistence_threshold: Auto | None = Field(
        None, description="from the hidden size: weights so small that they stay on each GPU"
    )
    stage3_max_live_parameters: int | None = Field(
        None, description="parameters gathered at once; less saves memory and costs time"
    )
    stage3_max_reuse_distance: int | None = Field(
        None, description="parameters that are needed again so soon are not let go"
    )
    stage3_gather_16bit_weights_on_model_save: bool | None = Field(
        None, description="without it the saved model has no weights, and training still exits 0"
    )
    offload_optimizer: Offload | None = Field(None, description="optimizer states leave the GPU")
    offload_param: Offload | None = Field(None, description="weights leave the GPU (stage 3)")


class Config(_Part):
    """A whole DeepSpeed configuration."""

    train_batch_size: Auto = Field("auto", description="the trainer's own value holds")
    train_micro_batch_size_per_gpu: Auto = Field("auto", description="as above")
    gradient_accumulation_steps: Auto = Field("auto", description="as above")
    gradient_clipping: Auto = Field("auto", description="as above: `training.max_grad_norm`")
    zero_allow_untested_optimizer: bool = Field(
        True, description="DeepSpeed refuses optimizers that it does not know, 8-bit ones too"
    )
    zero_force_ds_cpu_optimizer: bool = Field(
        description="false keeps the recipe's optimizer under offload; true puts DeepSpeed's CPU "
        "Adam in its place (`distributed.cpu_adam`), which is faster, needs a C++ compiler (and "
        "the CUDA toolkit) and has no 8-bit states"
    )
    bf16: Switch = Field(description="the run's precision, see below")
    fp16: Switch = Field(description="the run's precision, see below")
    zero_optimization: Zero = Field(description="see below")
    aio: Aio | None = Field(None, description="only with a disk")

    def as_dict(self) -> dict[str, Any]:
        """What DeepSpeed reads."""
        return self.model_dump(mode="json", exclude_none=True)


Offloaded = Literal["none", "optimizer", "all"]

SHIPPED: dict[str, tuple[Literal[1, 2, 3], Offloaded]] = {
    "ds_z1": (1, "none"),
    "ds_z2": (2, "none"),
    "ds_z2_offload": (2, "optimizer"),
    "ds_z3": (3, "none"),
    "ds_z3_offload": (3, "all"),
}
"""Name of each shipped file -> ZeRO stage and what is offloaded."""


def build(
    stage: Literal[1, 2, 3],
    *,
    offload: Offloaded = "none",
    dtype: str = "bfloat16",
    pin_memory: bool = True,
    nvme: str | None = None,
    cpu_adam: bool = False,
) -> Config:
    """The configuration for a ZeRO stage.

    There is no optimizer and no scheduler in it: both are the trainer's, by the recipe. With `nvme`
    the optimizer states are held on that disk (stage 3 only); offloaded weights stay in host
    memory, since DeepSpeed's disk buffers for weights must be sized by hand to the largest layer.
    """
    host = Offload(device="cpu", pin_memory=pin_memory)
    disk = Offload(device="nvme", pin_memory=pin_memory, nvme_path=nvme) if nvme else host
    zero = Zero(
        stage=stage,
        reduce_scatter=True if stage >= 2 else None,
        offload_optimizer=disk if offload in ("optimizer", "all") else None,
        **(_third(host if offload == "all" else None) if stage == 3 else {}),
    )
    return Config(
        zero_force_ds_cpu_optimizer=cpu_adam,
        bf16=Switch(enabled=dtype == "bfloat16"),
        fp16=Switch(enabled=dtype == "float16"),
        zero_optimization=zero,
        aio=Aio() if nvme else None,
    )


def _third(parameters: Offload | None) -> dict[str, Any]:
    """What only stage 3 has."""
    return {
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
        "stage3_gather_16bit_weights_on_model_save": True,
        "offload_param": parameters,
    }


def for_recipe(
    recipe: Recipe, target: Target, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration of a recipe on a target: made, or the user's own, in line with it."""
    dtype = target.dtype(recipe.model.dtype)
    if own is not None:
        return patched(recipe, own, dtype)[0]
    spread = recipe.distributed
    return build(
        spread.zero_stage,
        offload=spread.offload,
        dtype=dtype,
        pin_memory=target.device == "cuda",
        nvme=spread.nvme,
        cpu_adam=spread.cpu_adam,
    ).as_dict()


FILE = "deepspeed.json"


def rendered(recipe: Recipe, paths: Paths, target: Target) -> tuple[RenderedFile, ...]:
    """The file of a run, if it has one. A file of the user's own that was not read stays theirs."""
    spread = recipe.distributed
    if spread.strategy != "deepspeed" or (spread.deepspeed_file and paths.deepspeed is None):
        return ()
    return (RenderedFile(FILE, as_text(for_recipe(recipe, target, paths.deepspeed))),)


def named(recipe: Recipe, paths: Paths) -> str:
    """Where the backend's configuration finds it."""
    own = recipe.distributed.deepspeed_file
    return own if own and paths.deepspeed is None else f"{paths.rendered}/{FILE}"


def as_text(config: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(config, indent=2) + "\n"


def shipped_files() -> dict[str, str]:
    """What `deepspeed_configs/` must contain: file name -> text."""
    files = {
        f"{name}.json": as_text(build(stage, offload=offload).as_dict())
        for name, (stage, offload) in SHIPPED.items()
    }
    return {**files, "README.md": documentation()}


SECTIONS: tuple[tuple[str, type[BaseModel], tuple[str, ...]], ...] = (
    ("At the top", Config, ()),
    ("`bf16` and `fp16`", Switch, ("bf16",)),
    ("`zero_optimization`", Zero, ("zero_optimization",)),
    ("`offload_optimizer`, `offload_param`", Offload, ("zero_optimization", "offload_optimizer")),
    ("`aio`", Aio, ("aio",)),
)
"""Title, model and place of each table of the documentation."""


def _at(config: BaseModel, place: Sequence[str]) -> BaseModel | None:
    part: BaseModel | None = config
    for name in place:
        part = getattr(part, name, None)
    return part


def documentation() -> str:
    """Each field, where it has which value, and why."""
    lines = [
        "# DeepSpeed configurations",
        "",
        "Made by `orchestrator/distributed/deepspeed.py` (`make golden`), for use with the",
        "backends' own commands. A run of `ft` renders its own from the recipe. Which one to",
        'choose: "Choose a ZeRO stage" in the main README.',
    ]
    shipped = {name: build(stage, offload=offload) for name, (stage, offload) in SHIPPED.items()}
    for title, part, place in SECTIONS:
        made = {name: _at(config, place) for name, config in shipped.items()}
        lines += ["", f"## {title}", "", "| field | value | why |", "| --- | --- | --- |"]
        for name, field in part.model_fields.items():
            lines.append(f"| `{name}` | {_values(name, made)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _values(name: str, made: Mapping[str, BaseModel | None]) -> str:
    """The values of a field in the shipped files, and in which ones if they differ."""
    found: dict[str, list[str]] = {}
    for file, part in made.items():
        value = getattr(part, name) if part is not None else None
        if value is not None and not isinstance(value, BaseModel):
            found.setdefault(json.dumps(value), []).append(file)
        elif value is not None:
            found.setdefault("{...}", []).append(file)
    if len(found) == 1 and len(next(iter(found.values()))) == len(made):
        return f"`{next(iter(found))}`"
    return "; ".join(f"`{value}` in {', '.join(files)}" for value, files in found.items()) or "-"
