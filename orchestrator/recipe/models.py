"""What a user writes: the recipe, neutral of the backend, strict in every section.

A field's meaning is here; how each backend writes it, and what it cannot do, is in its folder in
`backends/`. Rules over several fields are in `checks.py`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

BackendName = Literal["axolotl", "llamafactory"]
Stage = Literal["pretrain", "sft", "dpo", "kto", "orpo", "reward"]
DataFormat = Literal["alpaca", "messages", "sharegpt", "text", "preference", "kto"]
ColumnRole = Literal[
    "system", "instruction", "input", "output", "history", "messages", "role", "content", "text",
    "prompt", "completion", "chosen", "rejected", "label",
]  # fmt: skip
Quantization = Literal["none", "int8", "nf4"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Family = Literal["mistral", "llama2", "llama3", "qwen2", "qwen3", "gemma", "phi3"]
Strategy = Literal["none", "ddp", "deepspeed", "fsdp"]
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit",
    "adafactor", "lion_32bit", "lion_8bit", "sgd",
]  # fmt: skip
Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
]  # fmt: skip

Text = Annotated[str, StringConstraints(min_length=1)]
Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Texts = Annotated[tuple[Text, ...], Strict(False)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Cadence = Annotated[Literal["epoch", "never"] | Positive, Field(description="epoch, never or every N optimizer steps")]  # noqa: E501  # fmt: skip


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(Section):
    """The base model and how it is loaded."""

    base: Text = Field(description="hub id or folder of the base model")
    revision: Text | None = Field(None, description="branch, tag or commit on the hub")
    family: Family | None = Field(
        None, description="architecture family; only --smoke needs it, and only if it cannot tell"
    )
    quantization: Quantization = Field(
        "none", description="how the frozen base is held in memory; nf4 with a LoRA is QLoRA"
    )
    attention: Attention = Field("sdpa", description="attention implementation")
    dtype: Dtype = Field(
        "auto", description="computation type; auto is bfloat16 on a GPU that has it, else float32"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")


class Source(Section):
    """One data set."""

    path: Text = Field(description="file, folder or hub id")
    format: DataFormat = Field(description="what a row looks like")
    columns: dict[ColumnRole, Text | None] = Field(
        default_factory=dict,
        description="the format's columns by the names that the data uses; null: there is none",
    )
    roles: dict[Literal["user", "assistant", "system", "tool"], Text] = Field(
        default_factory=dict, description="role names that the data uses (messages, sharegpt)"
    )
    subset: Text | None = Field(None, description="configuration name on the hub")
    split: Text = Field("train", description="split to train on")
    revision: Text | None = Field(None, description="branch, tag or commit on the hub")
    samples: Positive | None = Field(None, description="use only the first N rows")


class Data(Section):
    """What is trained on."""

    sources: Annotated[tuple[Source, ...], Strict(False), Field(min_length=1)] = Field(
        description="the training data"
    )
    validation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0, description="held out for evaluation: a share below 1, or a number of rows"
    )
    validation_sources: Annotated[tuple[Source, ...], Strict(False)] = Field(
        (), description="data sets to evaluate on, instead of a share of the training data"
    )
    sequence_length: Annotated[int, Field(ge=16)] = Field(2048, description="tokens per sequence")
    overlong: Literal["backend", "drop", "truncate", "error"] = Field(
        "backend",
        description="rows longer than sequence_length; backend: axolotl drops, llamafactory cuts",
    )
    packing: bool = Field(False, description="several rows in one sequence, attention kept apart")
    chat_template: Text = Field(
        "tokenizer",
        description="template by name, `tokenizer` for the model's own, "
        "`alpaca` for the Alpaca prompt, or a .jinja file",
    )
    stop_tokens: Texts = Field((), description="tokens that end a turn, if the template has others")
    default_system: Text | None = Field(None, description="system prompt of rows without one")
    train_on: Literal["assistant", "last_assistant", "all"] = Field(
        "assistant", description="which text the loss is computed on"
    )
    workers: Positive | None = Field(None, description="processes for preprocessing")

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        """Every source, to train and to validate on, with its dotted field."""
        for group in ("sources", "validation_sources"):
            for index, source in enumerate(getattr(self, group)):
                yield f"data.{group}[{index}]", source


class Adapter(Section):
    """A LoRA on the frozen base, or none for a full fine-tune."""

    type: Literal["none", "lora"] = Field("none", description="lora or none")
    rank: Positive = Field(16, description="rank of the update")
    alpha: PositiveFloat = Field(32, description="scale of the update, times 1/rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout before the LoRA")
    targets: Literal["all-linear"] | Texts = Field(
        "all-linear", description="all-linear or a list of module names"
    )
    modules_to_save: Texts = Field((), description="modules trained in full beside the LoRA")
    dora: bool = Field(False, description="weight-decomposed LoRA")
    rslora: bool = Field(False, description="scale by 1/sqrt(rank)")
    loraplus_ratio: PositiveFloat | None = Field(None, description="LoRA+ learning rate ratio")


class Preference(Section):
    """Settings of dpo, orpo and kto."""

    beta: PositiveFloat = Field(0.1, description="strength of the pull to the reference model")
    loss: Literal["sigmoid", "hinge", "ipo", "simpo"] = Field("sigmoid", description="dpo loss")
    simpo_gamma: Annotated[float, Field(ge=0)] = Field(0.5, description="SimPO's target margin")


class Training(Section):
    """How it is trained."""

    stage: Stage = Field("sft", description="what kind of training")
    epochs: PositiveFloat | None = Field(None, description="passes over the data")
    steps: Positive | None = Field(None, description="optimizer steps, instead of epochs")
    micro_batch_size: Positive = Field(1, description="sequences per process and forward pass")
    gradient_accumulation: Positive = Field(1, description="forward passes per optimizer step")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(description="peak learning rate")
    scheduler: Scheduler = Field("cosine", description="learning rate schedule")
    warmup_ratio: Share = Field(0.0, description="share of the steps spent warming up")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="or their number")
    optimizer: Optimizer = Field("adamw_torch", description="optimizer")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="weight decay")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="gradient clipping norm")
    gradient_checkpointing: bool = Field(
        True, description="recompute activations instead of keeping them"
    )
    neftune_alpha: PositiveFloat | None = Field(None, description="noise on the embeddings")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="seed of everything")
    log_every: Positive = Field(10, description="steps between two log lines")
    save: Cadence = Field("epoch", description="when a checkpoint is written")
    keep_checkpoints: Positive = Field(2, description="how many checkpoints stay on disk")
    evaluate: Cadence = Field("never", description="when the validation data is evaluated")
    eval_batch_size: Positive | None = Field(None, description="default: micro_batch_size")
    early_stopping: Positive | None = Field(
        None, description="stop after N evaluations without a lower loss; keeps the best model"
    )
    preference: Preference = Field(default_factory=Preference, description="dpo, orpo, kto")


class Distributed(Section):
    """How the work is spread over processes."""

    strategy: Strategy = Field("none", description="none, ddp, deepspeed or fsdp")
    zero_stage: Literal[1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what is held in host memory (DeepSpeed, FSDP)"
    )
    gpus: Positive | None = Field(None, description="processes per node; default: every GPU seen")
    nodes: Positive = Field(1, description="number of nodes")


class Tracking(Section):
    """Where metrics are sent besides the run's own record."""

    type: Literal["none", "wandb", "tensorboard"] = Field("none", description="tracker")
    project: Text | None = Field(None, description="wandb project")
    entity: Text | None = Field(None, description="wandb team or user")
    run_name: Text | None = Field(None, description="name shown by the tracker")


class Output(Section):
    """What is left at the end."""

    directory: Text = Field("runs", description="folder that holds the runs")
    merge: bool = Field(True, description="merge a LoRA into the unquantized base")
    export: bool = Field(True, description="make a clean folder that serves and loads anywhere")
    push_to_hub: Text | None = Field(None, description="hub repository to push the export to")
    private: bool = Field(True, description="the hub repository is private")


class Native(Section):
    """Backend options that no neutral field covers; checked against the pinned release's keys."""

    axolotl: dict[str, Any] = Field(default_factory=dict, description="axolotl keys")
    llamafactory: dict[str, Any] = Field(default_factory=dict, description="LLaMA-Factory keys")


class Recipe(Section):
    """A whole fine-tune."""

    name: Slug = Field(description="name of the recipe and of its runs")
    description: str = Field("", description="what it is for")
    backend: BackendName = Field("axolotl", description="axolotl or llamafactory")
    model: Model
    data: Data
    adapter: Adapter = Field(default_factory=Adapter)
    training: Training
    distributed: Distributed = Field(default_factory=Distributed)
    tracking: Tracking = Field(default_factory=Tracking)
    output: Output = Field(default_factory=Output)
    native: Native = Field(default_factory=Native)


COLUMNS: dict[DataFormat, dict[ColumnRole, str | None]] = {
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output",
               "system": None, "history": None},
    "messages": {"messages": "messages", "role": "role", "content": "content", "system": None},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value", "system": None},
    "text": {"text": "text"},
    "preference": {"messages": "messages", "chosen": "chosen", "rejected": "rejected",
                   "role": "role", "content": "content"},
    "kto": {"prompt": "prompt", "completion": "completion", "label": "label"},
}  # fmt: skip
"""Columns of each format and their usual names; None: used only if the recipe names it."""

STAGE_FORMATS: dict[Stage, tuple[DataFormat, ...]] = {
    "pretrain": ("text",),
    "sft": ("alpaca", "messages", "sharegpt", "text"),
    "dpo": ("preference",),
    "orpo": ("preference",),
    "reward": ("preference",),
    "kto": ("kto",),
}
"""Data formats that a stage can train on."""


def column(source: Source, role: ColumnRole) -> str | None:
    """The name of a column in the data of `source`; None if there is none."""
    if role in source.columns:
        return source.columns[role]
    return COLUMNS[source.format].get(role)
