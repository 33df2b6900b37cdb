"""Settings of a strategy, and combinations that cannot work (`FT214`, `FT215`, `FT236`)."""

from collections.abc import Iterator

from orchestrator.distributed import fsdp
from orchestrator.findings import Finding
from orchestrator.recipe.models import Fsdp, Recipe

EIGHT_BIT_OPTIMIZERS = frozenset((
    "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "paged_lion_8bit",
    "ademamix_8bit", "paged_ademamix_8bit", "rmsprop_bnb_8bit",
))  # fmt: skip
BITSANDBYTES = EIGHT_BIT_OPTIMIZERS | {
    "paged_adamw_32bit", "lion_32bit", "paged_lion_32bit", "ademamix", "paged_ademamix_32bit",
    "rmsprop_bnb", "rmsprop_bnb_32bit",
}  # fmt: skip
"""Optimizers whose kernels know no DTensor, which FSDP 2 makes of each parameter: the first step
ends with "does not have a sharding strategy registered" (bitsandbytes 0.50.2)."""


def effective_batch(recipe: Recipe) -> Iterator[Finding]:
    """Rows of a step that no number of processes can make; the rest is known with that number."""
    wanted, micro = recipe.training.effective_batch, recipe.training.micro_batch_size
    if wanted is not None and wanted % micro:
        yield Finding(
            "FT236",
            "error",
            f"{wanted} rows cannot be made of {micro} rows per forward pass",
            field="training.effective_batch",
            fix=f"--set training.effective_batch={max(1, round(wanted / micro)) * micro}",
        )


def _fsdp(recipe: Recipe, named: Fsdp) -> Iterator[Finding]:
    field = fsdp.in_parts(recipe)
    wrong = list(_fsdp_values(named))
    yield from wrong
    if field and not wrong:
        yield Finding(
            "FT215",
            "warning",
            "the model is saved in parts that nothing else loads; a run of ft needs it whole",
            field=field,
            fix=f"--set {field}=FULL_STATE_DICT",
        )
    if named.version in (None, 1) and named.reshard is not None:
        yield Finding(
            "FT214",
            "error",
            "reshard is FSDP 2's; in FSDP 1 it is a sharding strategy",
            field="distributed.fsdp.reshard",
            fix="--set distributed.fsdp.version=2, or options: [shard_grad_op] instead",
        )
    if named.wrap == "SIZE_BASED_WRAP" and (named.min_parameters or 0) < 1:
        yield Finding(
            "FT214",
            "error",
            "wrapping by size needs the size",
            field="distributed.fsdp.min_parameters",
            fix="--set distributed.fsdp.min_parameters=100000000",
        )
    if named.checkpoint_activations and recipe.training.gradient_checkpointing:
        # transformers' trainer refuses it; LLaMA-Factory has its own way around the trainer
        yield Finding(
            "FT215",
            "error" if recipe.backend == "axolotl" else "warning",
            "FSDP and the trainer would both recompute the layers",
            field="distributed.fsdp.checkpoint_activations",
            fix="--set training.gradient_checkpointing=false",
        )


def _with_fsdp(recipe: Recipe) -> Iterator[Finding]:
    optimizer = recipe.training.optimizer
    if fsdp.version_of(recipe) == 2 and optimizer in BITSANDBYTES:
        yield Finding(
            "FT215",
            "error",
            f"FSDP 2 cannot step {optimizer}: bitsandbytes' kernels know no sharded parameters",
            field="training.optimizer",
            fix="--set training.optimizer=adamw_torch, or --set distributed.strategy=deepspeed",
        )
    named = recipe.distributed.fsdp
    quantized = recipe.model.quantization == "nf4"
    if quantized and named and named.load_on_first and fsdp.version_of(recipe) == 2:
        yield Finding(
            "FT215",
            "error",
            "FSDP 2 does not send quantized weights from the first process to the others",
            field="distributed.fsdp.load_on_first",
            fix="--set distributed.fsdp.load_on_first=false",
        )
    if recipe.distributed.offload == "optimizer":
        yield Finding(
            "FT215",
            "note",
            "FSDP moves the weights to host memory too, not only the optimizer states",
            field="distributed.offload",
        )


def _fsdp_values(named: Fsdp) -> Iterator[Finding]:
    """Values that accelerate or the trainer refuse when they start."""
    for name, takes in fsdp.VALUES.items():
        given = getattr(named, name)
        if given is not None and given not in takes:
            yield Finding(
                "FT214",
                "error",
                f"{name} is one of {', '.join(map(str, takes))}, not {given!r}",
                field=f"distributed.fsdp.{name}",
            )
    options = named.options or ()
    odd = [one for one in options if one not in (*fsdp.STRATEGIES, "offload", "auto_wrap")]
    strategies = [one for one in options if one in fsdp.STRATEGIES]
    if odd or len(strategies) > 1 or list(options) == ["offload"]:
        text = f"{odd[0]!r} is none" if odd else "there must be one sharding strategy"
        yield Finding(
            "FT214",
            "error",
            f"options are one of {', '.join(fsdp.STRATEGIES)}, and offload, auto_wrap: {text}",
            field="distributed.fsdp.options",
        )


def sharding(recipe: Recipe) -> Iterator[Finding]:
    """Settings of a strategy that is not in use, and combinations that cannot work."""
    yield from _not_in_use(recipe)
    spread = recipe.distributed
    if spread.strategy == "fsdp":
        yield from _with_fsdp(recipe)
        if spread.fsdp:
            yield from _fsdp(recipe, spread.fsdp)
    if spread.strategy == "deepspeed" and not spread.deepspeed_file:
        yield from _zero(recipe)
    yield from _states_and_weights(recipe)


def _not_in_use(recipe: Recipe) -> Iterator[Finding]:
    spread = recipe.distributed
    given = spread.model_fields_set
    if spread.strategy not in ("deepspeed", "auto") and "zero_stage" in given:
        yield Finding(
            "FT214",
            "error",
            "zero_stage needs strategy: deepspeed",
            field="distributed.zero_stage",
            fix="--set distributed.strategy=deepspeed",
        )
    if spread.strategy != "deepspeed" and spread.deepspeed_file:
        yield Finding(
            "FT214",
            "error",
            "deepspeed_file needs strategy: deepspeed",
            field="distributed.deepspeed_file",
            fix="--set distributed.strategy=deepspeed",
        )
    if spread.strategy != "fsdp" and spread.fsdp:
        # to axolotl a section fsdp_config is FSDP, whatever else is said; a version alone is not
        alone = spread.fsdp.model_fields_set <= {"version"}
        yield Finding(
            "FT214",
            "warning" if alone else "error",
            f"the section fsdp is not for strategy: {spread.strategy}",
            field="distributed.fsdp",
            fix="--set distributed.strategy=fsdp, or remove it",
        )
    if spread.strategy in ("none", "ddp") and spread.offload != "none":
        yield Finding(
            "FT214",
            "error",
            f"strategy {spread.strategy} cannot offload",
            field="distributed.offload",
            fix="--set distributed.strategy=deepspeed",
        )
    unused = spread.offload == "none" or spread.strategy == "fsdp"
    open_yet = spread.strategy == "auto" or spread.deepspeed_file
    if unused and not open_yet and (spread.nvme or spread.cpu_adam):
        name = "nvme" if spread.nvme else "cpu_adam"
        yield Finding(
            "FT214",
            "error",
            f"{name} is for optimizer states that DeepSpeed offloads",
            field=f"distributed.{name}",
            fix="--set distributed.strategy=deepspeed --set distributed.offload=optimizer",
        )
    if spread.strategy == "none" and spread.nodes * (spread.gpus or 1) > 1:
        yield Finding(
            "FT214",
            "error",
            "several processes need a strategy",
            field="distributed.strategy",
            fix="--set distributed.strategy=ddp",
        )


def _zero(recipe: Recipe) -> Iterator[Finding]:
    spread = recipe.distributed
    if spread.offload == "all" and spread.zero_stage != 3:
        yield Finding(
            "FT215",
            "error",
            "only ZeRO stage 3 can offload the parameters",
            field="distributed.offload",
            fix="--set distributed.zero_stage=3, or offload: optimizer",
        )
    if spread.nvme and spread.zero_stage != 3:
        yield Finding(
            "FT215",
            "error",
            "only ZeRO stage 3 can hold optimizer states on a disk",
            field="distributed.nvme",
            fix="--set distributed.zero_stage=3",
        )
    if spread.nvme:
        yield Finding(
            "FT215",
            "warning",
            "nvme has not been tried on a GPU here; and a training that is resumed goes on with "
            "other optimizer states (DeepSpeed 0.18.4)",
            field="distributed.nvme",
            fix="try it with few steps first, or leave it out: host memory is used then",
        )


def _llamafactory_on_stage_three(recipe: Recipe) -> Iterator[Finding]:
    """What LLaMA-Factory 0.9.5 refuses under ZeRO-3 (`hparams/parser.py`)."""
    if recipe.adapter.type == "lora" and str(recipe.adapter.init).startswith("pissa"):
        field, text = "adapter.init", "makes no PiSSA"
    elif recipe.model.pure_bf16:
        field, text = "model.pure_bf16", "trains no pure bfloat16"
    else:
        return
    yield Finding(
        "FT215",
        "error",
        f"LLaMA-Factory {text} under ZeRO stage 3",
        field=field,
        fix="--set distributed.zero_stage=2, or --backend axolotl",
    )


def _states_and_weights(recipe: Recipe) -> Iterator[Finding]:
    spread = recipe.distributed
    if spread.cpu_adam and not recipe.training.optimizer.startswith("adamw_torch"):
        yield Finding(
            "FT215",
            "error",
            f"cpu_adam computes AdamW, not {recipe.training.optimizer}",
            field="distributed.cpu_adam",
            fix="--set training.optimizer=adamw_torch",
        )
    third = spread.strategy == "deepspeed" and not spread.deepspeed_file and spread.zero_stage == 3
    if third and recipe.backend == "llamafactory":
        yield from _llamafactory_on_stage_three(recipe)
    layerwise = recipe.training.optimizer.endswith("_layerwise")
    if layerwise and spread.strategy not in ("none", "auto"):
        yield Finding(
            "FT215",
            "error",
            f"{recipe.training.optimizer} takes one process: the trainer refuses more",
            field="training.optimizer",
            fix=f"--set training.optimizer={recipe.training.optimizer.removesuffix('_layerwise')}",
        )
    sharded = spread.strategy == "fsdp" or third
    if sharded and recipe.model.quantization == "int8":
        yield Finding(
            "FT215",
            "error",
            "8-bit weights cannot be sharded",
            field="model.quantization",
            fix="--set model.quantization=nf4, or ZeRO stage 2",
        )
    if spread.offload != "none" and recipe.training.optimizer in EIGHT_BIT_OPTIMIZERS:
        yield Finding(
            "FT215",
            "error",
            "8-bit optimizer states cannot be offloaded",
            field="training.optimizer",
            fix="--set training.optimizer=adamw_torch",
        )
