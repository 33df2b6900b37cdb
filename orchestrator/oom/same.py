"""What of an earlier attempt a changed recipe still shares: its checkpoints, and its batches. Pure.

Looked up in the sources of transformers 5.6.0 and 5.16.1, accelerate 1.11 and 1.13, DeepSpeed 0.18
and axolotl 0.19.0. The trainer counts optimizer steps in a checkpoint and works out the batches to
skip from its new arguments, so another micro batch goes on at the right row; the learning rate
follows the steps. It takes the old micro batch from a checkpoint only for `batch_search`.
"""

from collections.abc import Iterator

from orchestrator.recipe.models import Recipe

REAL_BATCHES = ("sdpa", "eager")
"""Attention for which axolotl keeps packs apart; with others a batch is one long pack."""


def unreadable(before: Recipe, after: Recipe) -> str:
    """Why checkpoints of `before` cannot be read under `after`; empty if they can."""
    old, new = _layout(before), _layout(after)
    if old == new:
        return ""
    return f"a checkpoint of {_named(before)} has no optimizer states that {_named(after)} can read"


def _layout(recipe: Recipe) -> tuple[object, ...]:
    spread = recipe.distributed
    if spread.strategy == "deepspeed":
        return ("deepspeed", spread.zero_stage, spread.offload, spread.deepspeed_file)
    if spread.strategy == "fsdp":
        return ("fsdp", spread.offload)
    return ("plain",)


def _named(recipe: Recipe) -> str:
    spread = recipe.distributed
    match spread.strategy:
        case "deepspeed" if not spread.deepspeed_file:
            offload = " with offload" if spread.offload != "none" else ""
            return f"ZeRO-{spread.zero_stage}{offload}"
        case "deepspeed":
            return "your DeepSpeed file"
        case "fsdp":
            return "FSDP with offload" if spread.offload != "none" else "FSDP"
        case _:
            return "plain training"


def differences(before: Recipe, after: Recipe, processes: int) -> Iterator[str]:
    """What is not the same although the effective batch is; nothing if only rounding differs."""
    old, new = before.training, after.training
    if old.micro_batch_size == new.micro_batch_size:
        return
    if before.backend == "axolotl" and before.data.packing:
        if before.model.attention in REAL_BATCHES:
            yield "packing: at the end of an epoch fewer packs are left out"
        else:
            yield (
                "packing: batches are made anew, since axolotl packs micro_batch_size x "
                "sequence_length tokens at once"
            )
    elif old.loader_drop_last:
        yield "loader_drop_last: at the end of an epoch fewer rows are left out"
    elif processes > 1:
        yield "the last step of an epoch is filled up with fewer rows of its start"
    if old.evaluate not in (None, "never"):
        yield "the loss of an evaluation is averaged over smaller batches"
    if old.stage == "kto":
        yield "KTO: the mean that answers are set against is taken over fewer rows"
    if before.adapter.dropout or old.neftune_alpha:
        yield "dropout and noise draw other numbers"
