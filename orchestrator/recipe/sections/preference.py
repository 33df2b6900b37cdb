"""Training by preferences, rewards and generated answers."""

from typing import Annotated

from pydantic import Field

from orchestrator.recipe.sections.base import (
    Numbers,
    Positive,
    PositiveFloat,
    Real,
    Section,
    Text,
    Texts,
)


class Preference(Section):
    """Settings of dpo, orpo and kto."""

    beta: PositiveFloat = Field(0.1, description="strength of the pull to the reference model")
    loss: Text = Field("sigmoid", description="dpo loss: sigmoid, hinge, ipo, simpo, ...")
    simpo_gamma: Annotated[float, Field(ge=0)] = Field(0.5, description="SimPO's target margin")
    label_smoothing: Real | None = Field(None, description="DPO: label smoothing")
    loss_weights: Numbers | None = Field(None, description="DPO: weight of each loss")
    weighting: bool | None = Field(None, description="DPO: weight the loss")
    padding_free: bool | None = Field(None, description="DPO without padding")
    precomputed_reference: bool | None = Field(
        None, description="run the reference model once, before training"
    )
    sft_share: Real | None = Field(None, description="weight of an SFT loss beside it")
    bco_weight: Real | None = Field(None, description="weight of a BCO loss beside it")
    ld_alpha: Real | None = Field(None, description="LD-DPO's alpha")
    orpo_alpha: Real | None = Field(None, description="ORPO: weight of the odds ratio")
    desirable_weight: Real | None = Field(None, description="KTO: weight of wanted answers")
    undesirable_weight: Real | None = Field(None, description="KTO: weight of unwanted answers")
    reward_centering: Real | None = Field(None, description="reward: pull to a mean of zero")
    reference_model: Text | None = Field(None, description="the reference model")
    reference_adapters: Text | None = Field(None, description="its LoRA")
    reference_bits: Positive | None = Field(None, description="its quantization")


class Ppo(Section):
    """PPO, and the reward model that it asks."""

    reward_model: Text | None = Field(None, description="model or service that scores answers")
    reward_adapters: Text | None = Field(None, description="its LoRA")
    reward_bits: Positive | None = Field(None, description="its quantization")
    reward_type: Text | None = Field(None, description="lora, full or api")
    buffer_size: Positive | None = Field(None, description="batches per step")
    epochs: Positive | None = Field(None, description="passes over a buffer")
    normalize_scores: bool | None = Field(None, description="normalize the scores")
    target_kl: Real | None = Field(None, description="target of the divergence")
    whiten_rewards: bool | None = Field(None, description="whiten the rewards")


class Grpo(Section):
    """GRPO: answers are generated, scored and compared; the vLLM server that generates them."""

    beta: Real | None = Field(None, description="weight of the divergence")
    generations: Positive | None = Field(None, description="answers per prompt")
    max_completion_length: Positive | None = Field(None, description="tokens of an answer")
    rewards: Texts | None = Field(None, description="reward functions, module.function")
    reward_weights: Numbers | None = Field(None, description="weight of each")
    reward_workers: Positive | None = Field(None, description="processes for rewards")
    loss: Text | None = Field(None, description="kind of loss")
    scale_rewards: bool | Text | None = Field(None, description="divide by the deviation")
    epsilon: Real | None = Field(None, description="clipping below")
    epsilon_high: Real | None = Field(None, description="clipping above")
    temperature: Real | None = Field(None, description="temperature of sampling")
    top_p: Real | None = Field(None, description="nucleus of sampling")
    top_k: int | None = Field(None, description="candidates of sampling")
    min_p: Real | None = Field(None, description="least share of sampling")
    repetition_penalty: Real | None = Field(None, description="penalty of repeated tokens")
    iterations: Positive | None = Field(None, description="updates per batch of answers")
    sync_reference: bool | None = Field(None, description="let the reference model follow")
    reference_mixup: Real | None = Field(None, description="how much it follows")
    reference_sync_steps: Positive | None = Field(None, description="how often it follows")
    mask_truncated: bool | None = Field(None, description="no loss on cut answers")
    importance_level: Text | None = Field(None, description="token or sequence")
    log_completions: bool | None = Field(None, description="log the answers")
    liger_loss: bool | None = Field(None, description="Liger's fused loss")
    vllm: bool | None = Field(None, description="generate with vLLM")
    vllm_mode: Text | None = Field(None, description="server or colocate")
    vllm_host: Text | None = Field(None, description="its host")
    vllm_port: Positive | None = Field(None, description="its port")
    vllm_timeout: Positive | None = Field(None, description="seconds to wait for it")
    vllm_sync_interval: Positive | None = Field(
        None, description="steps between two updates of its weights"
    )
    vllm_lora_sync: bool | None = Field(None, description="send it the LoRA only")
    vllm_correction: bool | None = Field(None, description="correct for its other numbers")
    data_producer: bool | None = Field(None, description="generate beside training")
    prefetch: bool | None = Field(None, description="generate ahead")
    prefetch_depth: Positive | None = Field(None, description="how far ahead")
    replay_buffer: int | None = Field(None, description="batches to use again")
    generation_batch_size: Positive | None = Field(None, description="prompts generated at once")
    objective_aggregation: Text | None = Field(None, description="how rewards are added up (GDPO)")
    server_host: Text | None = Field(None, description="vLLM server: host")
    server_port: Positive | None = Field(None, description="vLLM server: port")
    server_tensor_parallel: Positive | None = Field(
        None, description="vLLM server: tensor parallel"
    )
    server_data_parallel: Positive | None = Field(None, description="vLLM server: data parallel")
    server_memory: Real | None = Field(None, description="vLLM server: share of the GPU memory")
    server_length: Positive | None = Field(None, description="vLLM server: tokens at most")
    server_dtype: Text | None = Field(None, description="vLLM server: computation type")
    server_prefix_caching: bool | None = Field(None, description="vLLM server: keep prefixes")
    server_eager: bool | None = Field(None, description="vLLM server: no CUDA graphs")


class Ebft(Section):
    """Axolotl's energy-based fine-tuning."""

    mode: Text | None = Field(None, description="structured or strided")
    alignment: Real | None = Field(None, description="weight of the alignment")
    diversity: Real | None = Field(None, description="weight of the diversity")
    cross_entropy: Real | None = Field(None, description="weight of the cross entropy")
    reinforcement: Real | None = Field(None, description="weight of the policy gradient")
    whitening: bool | None = Field(None, description="whiten the features")
    advantage: Text | None = Field(None, description="estimator of the advantage")
    embedding: Text | None = Field(None, description="how features are pooled")
    features: Numbers | None = Field(None, description="layers of the features")
    generations: Positive | None = Field(None, description="answers per prompt")
    generate_length: Positive | None = Field(None, description="tokens of an answer")
    stride: Positive | None = Field(None, description="strided: step")
    context: Positive | None = Field(None, description="strided: context")
    temperature: Real | None = Field(None, description="temperature of sampling")
    top_p: Real | None = Field(None, description="nucleus of sampling")
    min_prefix: int | None = Field(None, description="tokens of an answer that are given")
    adaptive_length: bool | None = Field(None, description="length by the true answer")
    length_factor: Real | None = Field(None, description="times the true answer's length")


class Generation(Section):
    """Text generated in evaluation and prediction."""

    predict: bool | None = Field(None, description="write answers to the evaluation data")
    with_generate: bool | None = Field(None, description="judge generated text, not the loss")
    sample: bool | None = Field(None, description="sample instead of taking the best token")
    max_new_tokens: Positive | None = Field(None, description="tokens of an answer at most")
    max_length: Positive | None = Field(None, description="tokens of prompt and answer at most")
    temperature: Real | None = Field(None, description="temperature of sampling")
    top_p: Real | None = Field(None, description="nucleus of sampling")
    top_k: int | None = Field(None, description="candidates of sampling")
    beams: Positive | None = Field(None, description="beams of the search")
    eval_beams: Positive | None = Field(None, description="beams while evaluating")
    repetition_penalty: Real | None = Field(None, description="penalty of repeated tokens")
    length_penalty: Real | None = Field(None, description="penalty of long answers")
    accuracy: bool | None = Field(None, description="report the share of right tokens")
    causal_metrics: bool | None = Field(None, description="judge generated text by metrics")
    causal_metric_names: Texts | None = Field(None, description="which metrics")
