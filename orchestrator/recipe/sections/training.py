"""How it is trained."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.recipe.sections.base import (
    Cadence,
    Count,
    Options,
    OptionsList,
    Positive,
    PositiveFloat,
    Real,
    Section,
    Share,
    ShareOfRun,
    Text,
    Texts,
)
from orchestrator.recipe.sections.optimizers import Apollo, Badam, Galore, Optimizer, Qat, Scheduler
from orchestrator.recipe.sections.preference import Ebft, Generation, Grpo, Ppo, Preference

Stage = Literal[
    "pretrain", "sft", "dpo", "kto", "orpo", "reward", "process_reward", "ppo", "grpo", "gdpo",
    "ebft",
]  # fmt: skip
REWARDED: tuple[Stage, ...] = ("ppo", "grpo", "gdpo", "ebft")
"""Stages that learn from rewards for what the model itself has written."""


class Training(Section):
    """How it is trained."""

    stage: Stage = Field("sft", description="what kind of training")
    epochs: PositiveFloat | None = Field(None, description="passes over the data")
    steps: Positive | None = Field(None, description="optimizer steps, instead of epochs")
    micro_batch_size: Positive = Field(1, description="sequences per process and forward pass")
    gradient_accumulation: Positive = Field(1, description="forward passes per optimizer step")
    effective_batch: Positive | None = Field(
        None,
        description="sequences per optimizer step over all processes, instead of the accumulation",
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(description="peak learning rate")
    scheduler: Scheduler = Field("cosine", description="learning rate schedule")
    warmup_ratio: Share = Field(0.0, description="share of the steps spent warming up")
    warmup_steps: Count | None = Field(0, description="or their number; null: as the backend likes")
    optimizer: Optimizer = Field("adamw_torch", description="optimizer")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="weight decay")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="gradient clipping norm")
    gradient_checkpointing: bool | Literal["offload", "offload_disk", "unsloth"] = Field(
        True,
        description="recompute activations instead of keeping them; offload: keep them elsewhere",
    )
    reentrant: bool | None = Field(
        False, description="torch's older way to recompute; null: as the backend likes"
    )
    group_by_length: bool | None = Field(None, description="batches of rows of similar length")
    neftune_alpha: PositiveFloat | None = Field(None, description="noise on the embeddings")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="seed of everything")
    log_every: Positive | ShareOfRun | None = Field(
        10, description="steps between two log lines; null: as the backend likes"
    )
    save: Cadence | None = Field(
        "epoch", description="when a checkpoint is written; null: as the backend likes"
    )
    keep_checkpoints: Positive | None = Field(
        2, description="how many checkpoints stay on disk; null: as the backend likes"
    )
    evaluate: Cadence | None = Field(
        "never", description="when the validation data is evaluated; null: as the backend likes"
    )
    eval_batch_size: Positive | None = Field(None, description="default: micro_batch_size")
    early_stopping: Positive | None = Field(
        None, description="stop after N evaluations without a lower loss; keeps the best model"
    )
    on_oom: Literal["stop", "retry"] = Field(
        "stop", description="when memory is full: stop, or retry with what needs less of it"
    )
    min_rate_ratio: Share | None = Field(
        None, description="the cosine ends at this share of the peak"
    )
    constant_rate_ratio: Share | None = Field(
        None, description="share of the run after which it stays there"
    )
    quadratic_warmup: bool | None = Field(None, description="quadratic warm-up")
    scheduler_options: Options | None = Field(None, description="further arguments of the schedule")
    optimizer_options: Text | Options | None = Field(
        None, description="further arguments of the optimizer"
    )
    optimizer_targets: Text | Texts | None = Field(
        None, description="modules of a projecting optimizer"
    )
    adam_beta1: Real | None = Field(None, description="Adam's first decay")
    adam_beta2: Real | None = Field(None, description="Adam's second decay")
    adam_beta3: Real | None = Field(None, description="CAME's third decay")
    adam_epsilon: Real | None = Field(None, description="Adam's epsilon")
    adam_epsilon2: Real | None = Field(None, description="CAME's second epsilon")
    dion_rate: Real | None = Field(None, description="Dion's learning rate")
    dion_momentum: Real | None = Field(None, description="Dion's momentum")
    rate_groups: OptionsList | None = Field(None, description="learning rates by module")
    embedding_rate: Real | None = Field(None, description="learning rate of the embeddings")
    embedding_rate_scale: Real | None = Field(None, description="or its scale")
    data_seed: int | None = Field(None, description="seed of the order of the data")
    compile: bool | Text | None = Field(None, description="torch.compile")
    compile_backend: Text | None = Field(None, description="its backend")
    compile_mode: Text | None = Field(None, description="its mode")
    offload_activations: bool | Text | None = Field(
        None, description="hold activations in host memory"
    )
    offload_layers: bool | None = Field(None, description="hold frozen layers in host memory")
    batch_search: bool | None = Field(None, description="look for a batch size that fits")
    average_tokens: bool | None = Field(
        None, description="average the loss over the tokens of all devices"
    )
    label_smoothing: Real | None = Field(None, description="label smoothing")
    collect_garbage: int | None = Field(None, description="steps between garbage collections")
    empty_cache: Positive | None = Field(
        None, description="steps between clearings of the GPU's cache"
    )
    loader_workers: int | None = Field(None, description="processes that load batches")
    loader_pin_memory: bool | None = Field(None, description="pinned host memory for batches")
    loader_prefetch: Positive | None = Field(None, description="batches loaded ahead")
    loader_drop_last: bool | None = Field(None, description="drop the last partial batch")
    loader_persistent: bool | None = Field(None, description="keep the loading processes")
    accelerator: Options | None = Field(None, description="options of accelerate")
    watchdog_threshold: Real | None = Field(None, description="stop when the loss is above this")
    watchdog_patience: Positive | None = Field(None, description="so many steps in a row")
    eaft: bool | None = Field(None, description="entropy-adaptive loss")
    eaft_alpha: Real | None = Field(None, description="its weight")
    eaft_k: Positive | None = Field(None, description="its candidates")
    dft: bool | None = Field(None, description="dynamic fine-tuning loss")
    asft: bool | None = Field(None, description="anchored loss")
    asft_alpha: Real | None = Field(None, description="its weight")
    evaluate_at_end: bool | None = Field(None, description="evaluate after training")
    evaluate_first: bool | None = Field(None, description="evaluate before training")
    evaluate_delay: Real | None = Field(None, description="evaluate only after this")
    eval_accumulation: Positive | None = Field(
        None, description="steps held on the GPU in evaluation"
    )
    keep_best: bool | None = Field(None, description="end with the best model")
    best_metric: Text | None = Field(None, description="what makes a model the best")
    higher_is_better: bool | None = Field(None, description="the metric's direction")
    token_speed: bool | None = Field(None, description="report tokens per second")
    count_input_tokens: bool | None = Field(None, description="count tokens for the speed report")
    log_first: bool | None = Field(None, description="log the first step too")
    log_when: Text | None = Field(None, description="no, steps or epoch")
    log_level: Text | None = Field(None, description="how much is logged")
    debug: Text | Texts | None = Field(None, description="checks of numbers")
    profile_steps: Positive | None = Field(None, description="steps to profile")
    profile_from: int | None = Field(None, description="first of them")
    profile: bool | None = Field(None, description="run torch's profiler")
    deterministic: bool | None = Field(None, description="the same numbers in each run")
    trainer: Text | None = Field(None, description="another trainer class")
    preference: Preference = Field(default_factory=Preference, description="dpo, orpo, kto")
    ppo: Ppo | None = Field(None, description="PPO")
    grpo: Grpo | None = Field(None, description="GRPO")
    ebft: Ebft | None = Field(None, description="energy-based fine-tuning")
    generation: Generation | None = Field(None, description="generated text in evaluation")
    galore: Galore | None = Field(None, description="GaLore")
    apollo: Apollo | None = Field(None, description="APOLLO")
    qat: Qat | None = Field(None, description="quantization-aware training")
    badam: Badam | None = Field(None, description="BAdam")
