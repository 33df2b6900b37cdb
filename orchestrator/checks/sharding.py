"""Settings of a strategy, and combinations that cannot work (`FT214`, `FT215`, `FT236`)."""

from collections.abc import Iterator

from orchestrator.distributed import fsdp
from orchestrator.findings import Finding
from orchestrator.recipe.models import Fsdp, Recipe

EIGHT_BIT_OPTIMIZERS = {"adamw_bnb_8bit", "paged_adamw_8bit", "lion_8bit"}


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
    if field:
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
    if named.wrap == "SIZE_BASED_WRAP" and not named.min_parameters:
        yield Finding(
            "FT214",
            "error",
            "wrapping by size needs the size",
            field="distributed.fsdp.min_parameters",
            fix="--set distributed.fsdp.min_parameters=100000000",
        )


def sharding(recipe: Recipe) -> Iterator[Finding]:
    """Settings of a strategy that is not in use, and combinations that cannot work."""
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
    if spread.strategy == "fsdp" and spread.fsdp:
        yield from _fsdp(recipe, spread.fsdp)
    own = bool(spread.deepspeed_file)
    zero = spread.strategy == "deepspeed" and not own
    if zero and spread.offload == "all" and spread.zero_stage != 3:
        yield Finding(
            "FT215",
            "error",
            "only ZeRO stage 3 can offload the parameters",
            field="distributed.offload",
            fix="--set distributed.zero_stage=3, or offload: optimizer",
        )
    if zero and spread.nvme and spread.zero_stage != 3:
        yield Finding(
            "FT215",
            "error",
            "only ZeRO stage 3 can hold optimizer states on a disk",
            field="distributed.nvme",
            fix="--set distributed.zero_stage=3",
        )
    if zero and spread.nvme:
        yield Finding(
            "FT215",
            "warning",
            "nvme has never trained here: with a tiny model on a CPU, DeepSpeed aborted",
            field="distributed.nvme",
            fix="try it with few steps first, or leave it out: host memory is used then",
        )
    if spread.cpu_adam and not recipe.training.optimizer.startswith("adamw_torch"):
        yield Finding(
            "FT215",
            "error",
            f"cpu_adam computes AdamW, not {recipe.training.optimizer}",
            field="distributed.cpu_adam",
            fix="--set training.optimizer=adamw_torch",
        )
    sharded = spread.strategy == "fsdp" or (zero and spread.zero_stage == 3)
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
