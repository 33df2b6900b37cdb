"""Rules over several fields of a recipe: generators of findings, pure and quick.

`FT2xx` are the recipe's own rules, `FT4xx` what the chosen backend cannot do (in its module).
Rules that need to look at files are in `data_check.py` and `preflight.py`.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from orchestrator.backends.registry import BACKENDS
from orchestrator.findings import Finding, errors_of
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import COLUMNS, STAGE_FORMATS, Recipe
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

Check = Callable[[Recipe], Iterator[Finding]]

PREQUANTIZED = re.compile(
    r"(?i)(?<![a-z])(gptq|awq|aqlm|eetq|hqq|exl2|gguf|bnb|nf4|fp8|(?:4|8)-?bits?|int[48])(?![a-z])"
)
EIGHT_BIT_OPTIMIZERS = {"adamw_bnb_8bit", "paged_adamw_8bit", "lion_8bit"}


def length_of_run(recipe: Recipe) -> Iterator[Finding]:
    """Exactly one of epochs and steps; a warm-up that fits."""
    training = recipe.training
    if training.epochs is None and training.steps is None:
        yield Finding(
            "FT201",
            "error",
            "neither epochs nor steps is given",
            field="training",
            fix="--set training.epochs=1",
        )
    if training.epochs is not None and training.steps is not None:
        yield Finding(
            "FT201",
            "error",
            "epochs and steps exclude each other",
            field="training.steps",
            fix="keep one of the two",
        )
    if training.warmup_ratio and training.warmup_steps:
        yield Finding(
            "FT202",
            "error",
            "warmup_ratio and warmup_steps exclude each other",
            field="training.warmup_steps",
            fix="keep one of the two",
        )
    if training.steps and (training.warmup_steps or 0) >= training.steps:
        yield Finding(
            "FT202",
            "error",
            f"warm-up ({training.warmup_steps} steps) is as long as the run "
            f"({training.steps} steps)",
            field="training.warmup_steps",
            fix=f"--set training.warmup_steps={max(1, training.steps // 10)}",
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
        # bitsandbytes finds its own 4-bit checkpoints as they should be
        fits = recipe.model.quantization == "nf4" and re.search(r"bnb|nf4|bitsandbytes", why)
        yield Finding(
            "FT205",
            "warning" if fits else "error",
            f"the base is quantized already ({why})",
            field="model.quantization",
            fix="--set model.quantization=none",
        )


def data_formats(recipe: Recipe) -> Iterator[Finding]:
    """Formats fit the stage, columns fit the format."""
    stage = recipe.training.stage
    fitting = STAGE_FORMATS[stage]
    for group in ("sources", "validation_sources"):
        for index, source in enumerate(getattr(recipe.data, group)):
            field = f"data.{group}[{index}]"
            if source.format not in fitting:
                yield Finding(
                    "FT206",
                    "error",
                    f"{stage} cannot train on {source.format} rows",
                    field=f"{field}.format",
                    fix=f"format: {' or '.join(fitting)}",
                )
            for role in source.columns:
                if role not in COLUMNS[source.format]:
                    yield Finding(
                        "FT207",
                        "error",
                        f"{source.format} rows have no column {role!r}",
                        field=f"{field}.columns.{role}",
                        fix=f"columns of {source.format}: {', '.join(COLUMNS[source.format])}",
                    )
            if source.roles and source.format not in ("messages", "sharegpt", "preference"):
                yield Finding(
                    "FT207", "error", f"{source.format} rows have no roles", field=f"{field}.roles"
                )


def chat_template(recipe: Recipe) -> Iterator[Finding]:
    """The template exists for the backend and fits the data."""
    name = recipe.data.chat_template
    backend = BACKENDS[recipe.backend]
    known = TEMPLATES.get(name)
    formats = {s.format for s in recipe.data.sources if not (s.chat_template or s.prompt)}
    if name.endswith(".jinja") or name in (TOKENIZER, ALPACA):
        pass
    elif known:
        if getattr(known, recipe.backend) is None:
            yield Finding(
                "FT208",
                "error",
                f"{backend.label} has no template {name!r}",
                field="data.chat_template",
            )
        elif known.differs and formats & {"messages", "sharegpt", "preference"}:
            yield Finding(
                "FT209", "note", f"template {name!r}: {known.differs}", field="data.chat_template"
            )
    elif name not in backend.template_names():
        names = [TOKENIZER, ALPACA, *TEMPLATES, *backend.template_names()]
        close = difflib.get_close_matches(name, names, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        yield Finding(
            "FT208",
            "error",
            f"unknown chat template {name!r}{guess}",
            field="data.chat_template",
            fix=f"one of {', '.join([TOKENIZER, ALPACA, *TEMPLATES])}, a .jinja file, or "
            f"one of {backend.label}'s own names",
        )
    if name == ALPACA and formats & {"messages", "sharegpt", "preference"}:
        yield Finding(
            "FT210",
            "error",
            "the Alpaca prompt cannot hold conversations",
            field="data.chat_template",
            fix="chat_template: tokenizer",
        )
    if name == TOKENIZER and "alpaca" in formats:
        yield Finding(
            "FT210",
            "error",
            "instruction rows need a prompt of their own",
            field="data.chat_template",
            fix="chat_template: alpaca",
        )


def evaluation(recipe: Recipe) -> Iterator[Finding]:
    """Held-out data is evaluated, evaluation has data, early stopping has both."""
    data, training = recipe.data, recipe.training
    held_out = bool(data.validation or data.validation_sources)
    if data.validation and data.validation_sources:
        yield Finding(
            "FT211",
            "error",
            "validation and validation_sources exclude each other",
            field="data.validation",
            fix="keep one of the two",
        )
    if data.validation >= 1 and not float(data.validation).is_integer():
        yield Finding(
            "FT211",
            "error",
            "a number of rows is whole; a share is below 1",
            field="data.validation",
        )
    if held_out and training.evaluate == "never":
        yield Finding(
            "FT212",
            "warning",
            "rows are held out for validation but never evaluated",
            field="data.validation",
            fix="--set training.evaluate=epoch",
        )
    if training.evaluate not in (None, "never") and not held_out:
        yield Finding(
            "FT212",
            "error",
            "there is nothing to evaluate on",
            field="training.evaluate",
            fix="--set data.validation=0.02",
        )
    if training.early_stopping is None or training.keep_best is False:
        return
    if training.evaluate == "never" or training.save == "never":
        yield Finding(
            "FT213",
            "error",
            "early stopping needs evaluate and save",
            field="training.early_stopping",
            fix="--set training.evaluate=100 --set training.save=100",
        )
    elif isinstance(training.evaluate, int) and isinstance(training.save, int):
        if training.save % training.evaluate:
            yield Finding(
                "FT213",
                "error",
                f"the best model can be kept only if every save (each "
                f"{training.save} steps) follows an evaluation (each {training.evaluate})",
                field="training.save",
                fix=f"--set training.save={training.evaluate}",
            )
    elif training.evaluate != training.save:
        yield Finding(
            "FT213",
            "error",
            "early stopping needs the same cadence for evaluate and save",
            field="training.save",
            fix=f"--set training.save={training.evaluate}",
        )


def sharding(recipe: Recipe) -> Iterator[Finding]:
    """Settings of a strategy that is not in use, and combinations that cannot work."""
    spread = recipe.distributed
    given = spread.model_fields_set
    if spread.strategy != "deepspeed" and "zero_stage" in given:
        yield Finding(
            "FT214",
            "error",
            "zero_stage needs strategy: deepspeed",
            field="distributed.zero_stage",
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
    if spread.strategy == "none" and (spread.nodes > 1 or (spread.gpus or 1) > 1):
        yield Finding(
            "FT214",
            "error",
            "several processes need a strategy",
            field="distributed.strategy",
            fix="--set distributed.strategy=ddp",
        )
    if spread.strategy == "deepspeed" and spread.offload == "all" and spread.zero_stage != 3:
        yield Finding(
            "FT215",
            "error",
            "only ZeRO stage 3 can offload the parameters",
            field="distributed.offload",
            fix="--set distributed.zero_stage=3, or offload: optimizer",
        )
    sharded = spread.strategy == "fsdp" or (
        spread.strategy == "deepspeed" and spread.zero_stage == 3
    )
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


def output(recipe: Recipe) -> Iterator[Finding]:
    """What is pushed must be made first."""
    out = recipe.output
    if out.push_to_hub and not out.export:
        yield Finding(
            "FT216",
            "error",
            "only an export can be pushed",
            field="output.push_to_hub",
            fix="--set output.export=true",
        )
    if out.push_to_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", out.push_to_hub):
        yield Finding(
            "FT216", "error", "a hub repository is written user/name", field="output.push_to_hub"
        )
    tracking = recipe.tracking
    if tracking.type != "wandb" and (tracking.project or tracking.entity):
        yield Finding(
            "FT217",
            "warning",
            "project and entity are wandb's",
            field="tracking",
            fix="--set tracking.type=wandb",
        )


def native(recipe: Recipe) -> Iterator[Finding]:
    """Native keys exist in the pinned release."""
    for name, backend in BACKENDS.items():
        block = getattr(recipe.native, name)
        known = backend.native_keys() if block else {}
        for key in block:
            if key in known:
                continue
            close = difflib.get_close_matches(key, known, n=1)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            yield Finding(
                "FT218",
                "error",
                f"{backend.label} has no key {key!r}{guess}",
                field=f"native.{name}.{key}",
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


def backend(recipe: Recipe) -> Iterator[Finding]:
    """What the chosen backend cannot do."""
    yield from BACKENDS[recipe.backend].findings(recipe)


CHECKS: tuple[Check, ...] = (
    length_of_run,
    adapter_and_base,
    data_formats,
    chat_template,
    evaluation,
    sharding,
    output,
    native,
    learning_rate,
    backend,
)


def check(loaded: Loaded) -> list[Finding]:
    """All findings about a recipe, each with its place."""
    found = [finding for rule in CHECKS for finding in rule(loaded.recipe)]
    return placed(found, loaded)


def placed(findings: Sequence[Finding], loaded: Loaded) -> list[Finding]:
    """The findings with the place of their field where they have none of their own."""
    return [
        finding if finding.place else replace(finding, place=loaded.place(finding.field))
        for finding in findings
    ]


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether a run must not start."""
    return bool(errors_of(findings))
