"""What is trained and how hard: adapter, base, learning rate (`FT203`-`FT205`, `FT219`)."""

import re
from collections.abc import Iterator

from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

PREQUANTIZED = re.compile(
    r"(?i)(?<![a-z])(gptq|awq|aqlm|eetq|hqq|exl2|gguf|bnb|nf4|fp8|(?:4|8)-?bits?|int[48])(?![a-z])"
)


def adapter_and_base(recipe: Recipe) -> Iterator[Finding]:
    """Quantization trains adapters only; a merge needs an unquantized base."""
    lora = recipe.adapter.type == "lora"
    if recipe.model.quantization != "none" and not lora:
        yield Finding(
            "FT203",
            "error",
            "a quantized base cannot be trained in full",
            field="model.quantization",
            fix="--set adapter.type=lora, or model.quantization=none",
        )
    if not lora:
        for name in sorted(recipe.adapter.model_fields_set - {"type"}):
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
    elif recipe.adapter.type == "none":
        yield Finding(
            "FT205",
            "error",
            f"a quantized base cannot be trained in full ({why})",
            field="model.base",
            fix="name the unquantized model as base",
        )
    if recipe.model.quantization != "none":
        yield Finding(
            "FT205",
            "error",
            f"the base is quantized already ({why})",
            field="model.quantization",
            fix="--set model.quantization=none",
        )


def learning_rate(recipe: Recipe) -> Iterator[Finding]:
    """Learning rates that are usual for the other method."""
    rate, lora = recipe.training.learning_rate, recipe.adapter.type == "lora"
    if not lora and rate > 2e-4 and recipe.training.stage in ("sft", "pretrain"):
        yield Finding(
            "FT219",
            "warning",
            f"{rate:g} is high for a full fine-tune (usual: 5e-6 to 5e-5)",
            field="training.learning_rate",
        )
    if lora and rate > 5e-3:
        yield Finding(
            "FT219",
            "warning",
            f"{rate:g} is high for a LoRA (usual: 5e-5 to 5e-4)",
            field="training.learning_rate",
        )
    if recipe.training.stage in ("dpo", "kto", "orpo") and rate > 1e-4:
        yield Finding(
            "FT219",
            "warning",
            f"{rate:g} is high for {recipe.training.stage} (usual: 5e-7 to 5e-5)",
            field="training.learning_rate",
        )
