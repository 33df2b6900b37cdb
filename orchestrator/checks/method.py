"""What is trained and how hard: adapter, base, learning rate.

Findings: `FT203`-`FT205`, `FT219`, `FT223`.
"""

import math
import re
from collections.abc import Iterator

from orchestrator.checks.counts import batch_rows
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

PREQUANTIZED = re.compile(
    r"(?i)(?<![a-z])(gptq|awq|aqlm|eetq|hqq|exl2|gguf|bnb|nf4|fp8|(?:4|8)-?bits?|int[48])(?![a-z])"
)


LORA_FIELDS = {
    "rank", "alpha", "dropout", "targets", "modules_to_save", "dora", "rslora", "loraplus_ratio",
    "linear_too", "init",
}  # fmt: skip


def adapter_and_base(recipe: Recipe) -> Iterator[Finding]:
    """Quantization trains adapters only; a merge needs an unquantized base."""
    lora, adapted = recipe.adapter.type == "lora", recipe.adapter.type in ("lora", "oft")
    if recipe.model.quantization != "none" and not adapted:
        yield Finding(
            "FT203",
            "error",
            "a quantized base cannot be trained in full",
            field="model.quantization",
            fix="--set adapter.type=lora, or model.quantization=none",
        )
    if not lora:
        for name in sorted(recipe.adapter.model_fields_set & LORA_FIELDS):
            yield Finding(
                "FT204",
                "warning",
                f"adapter.{name} has no effect without a LoRA",
                field=f"adapter.{name}",
                fix="--set adapter.type=lora",
            )
    found = PREQUANTIZED.search(recipe.model.base.rsplit("/", 1)[-1])
    if found:
        yield from prequantized(recipe, f"its name says {found.group(1)}")


def prequantized(recipe: Recipe, why: str) -> Iterator[Finding]:
    """What to say of a base that is already quantized; `why` we think so."""
    merge = recipe.adapter.type == "lora" and recipe.output.merge
    if merge:
        yield Finding(
            "FT205",
            "error",
            f"a LoRA cannot be merged into a quantized base ({why})",
            field="model.base",
            fix="name the unquantized model as base (quantization: nf4 loads it in 4 bit), or "
            "--set output.merge=false --set output.export=false",
        )
    elif recipe.adapter.type not in ("lora", "oft"):
        yield Finding(
            "FT205",
            "error",
            f"a quantized base cannot be trained in full ({why})",
            field="model.base",
            fix="name the unquantized model as base",
        )
    if recipe.model.quantization != "none":
        # bitsandbytes finds its own 4-bit checkpoints as they should be
        fits = recipe.model.quantization == "nf4" and re.search(r"bnb|nf4|bitsandbytes", why)
        yield Finding(
            "FT205",
            "warning" if fits else "error",
            f"the base is quantized already ({why})",
            field="model.quantization",
            fix="--set model.quantization=none",
        )


PRETRAINING_RATE = 3e-4
PRETRAINING_BATCH = 4_000_000
"""Peak learning rate and tokens per step at which 7-8B models were pretrained (Llama 2 and 3)."""


def learning_rate(recipe: Recipe) -> Iterator[Finding]:
    """Learning rates that are usual for another method or another batch.

    The rule of thumb is the pretraining rate times the root of the share that a batch is of the
    pretraining batch, ten times that for a LoRA. It is coarse, so only a factor of ten is told.
    """
    training, lora = recipe.training, recipe.adapter.type in ("lora", "oft")
    rate, stage = training.learning_rate, training.stage
    usual = ""
    if not lora and rate > 2e-4 and stage in ("sft", "pretrain"):
        usual = "for a full fine-tune (usual: 5e-6 to 5e-5)"
    elif lora and rate > 5e-3:
        usual = "for a LoRA (usual: 5e-5 to 5e-4)"
    elif stage in ("dpo", "kto", "orpo") and rate > 1e-4:
        usual = f"for {stage} (usual: 5e-7 to 5e-5)"
    if usual:
        yield Finding(
            "FT219", "warning", f"{rate:g} is high {usual}", field="training.learning_rate"
        )
        return
    tokens = batch_rows(recipe) * recipe.data.sequence_length
    guess = PRETRAINING_RATE * math.sqrt(tokens / PRETRAINING_BATCH) * (10 if lora else 1)
    if stage in ("sft", "pretrain") and not guess / 10 <= rate <= guess * 10:
        yield Finding(
            "FT219",
            "note",
            f"{rate:g} is far {'above' if rate > guess else 'below'} the usual {guess:.1g} for "
            f"{tokens:,} tokens per step: {PRETRAINING_RATE:g} * sqrt({tokens:,} / "
            f"{PRETRAINING_BATCH:,}){' * 10 for a LoRA' if lora else ''}",
            field="training.learning_rate",
            fix="change the rate, or gradient_accumulation; ignore this if you know better",
        )


def numbers(recipe: Recipe) -> Iterator[Finding]:
    """Values that a kernel cannot take."""
    model = recipe.model
    if model.attention.startswith("flash_attention") and model.dtype == "float32":
        yield Finding(
            "FT223",
            "error",
            "flash attention computes in half precision only",
            field="model.attention",
            fix="--set model.attention=sdpa, or model.dtype=bfloat16",
        )
