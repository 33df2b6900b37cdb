"""Rules on axolotl 0.19.0 configurations: its validators, and what they leave out.

Kept to what can be rendered: keys that only appear through `native` count, since a recipe may hold
any of them.
"""

import re

from orchestrator.checks.rules import Config, Rule, number, on

EIGHT_BIT = {"paged_adamw_8bit", "adamw_8bit", "adamw_bnb_8bit"}
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
REMOVED = (
    "rope_scaling", "max_packed_sequence_len", "s2_attention", "flash_attn_rms_norm", "rpo_alpha",
    "dpo_norm_loss", "dpo_use_logits_to_keep", "dpo_generate_during_eval",
)  # fmt: skip
ATTENTION_FLAGS = (
    "flash_attention", "sdp_attention", "xformers_attention", "eager_attention", "flex_attention",
)  # fmt: skip
LOSSES = (
    "cut_cross_entropy", "chunked_cross_entropy", "liger_cross_entropy",
    "liger_fused_linear_cross_entropy",
)  # fmt: skip
SPLIT_LISTS = ("tokens", "dpo_loss_type", "pretraining_dataset")


def _steps_and(config: Config, what: str) -> bool:
    strategy = config.get(f"{what}_strategy")
    return bool(config.get(f"{what}_steps")) and strategy not in (None, "steps")


def _fsdp2(config: Config) -> bool:
    inner = config.get("fsdp_config")
    inner = inner if isinstance(inner, dict) else {}
    return 2 in (config.get("fsdp_version"), inner.get("fsdp_version"))


def _fsdp(config: Config, key: str) -> object:
    inner = config.get("fsdp_config")
    return inner.get(key) if isinstance(inner, dict) else None


def _dataset_types(config: Config) -> list[str]:
    entries = config.get("datasets") or []
    return [e["type"] for e in entries if isinstance(e, dict) and isinstance(e.get("type"), str)]


def _bad_regex(config: Config) -> bool:
    targets = config.get("lora_target_modules")
    if not isinstance(targets, str):
        return False
    try:
        re.compile(targets)
    except re.error:
        return True
    return False


def _group(config: Config) -> float:
    trl = config.get("trl")
    return number(trl, "num_generations") if isinstance(trl, dict) else 0


RULES: tuple[Rule, ...] = (
    Rule(4, ("warmup_steps",), lambda c: not isinstance(c.get("warmup_steps", 0), int),
         "warmup_steps is a whole number", "warmup_ratio takes a share"),
    Rule(5, ("eval_strategy", "save_strategy"),
         lambda c: any(isinstance(c.get(k), bool) for k in ("eval_strategy", "save_strategy")),
         "a strategy is text", 'write "no"'),
    Rule(6, SPLIT_LISTS, lambda c: any(isinstance(c.get(k), (str, dict)) for k in SPLIT_LISTS),
         "tokens, dpo_loss_type and pretraining_dataset are lists", "write [..]"),
    Rule(8, ("bf16",), lambda c: c.get("bf16") not in (None, "auto", True, False),
         "bf16 is true, false or auto"),
    Rule(10, ("test_datasets", "pretraining_dataset", "streaming", "val_set_size"),
         lambda c: c.get("val_set_size") and on(c, "test_datasets", "pretraining_dataset",
                                                "streaming"),
         "a share for validation excludes validation data sets and streaming",
         "--set data.validation=0"),
    Rule(11, ("streaming", "pretraining_dataset"),
         lambda c: on(c, "streaming", "pretraining_dataset") and not c.get("max_steps"),
         "streamed data has no length: the run needs steps",
         "--set training.steps=1000 --set training.epochs=null"),
    Rule(12, ("streaming",),
         lambda c: c.get("streaming") and c.get("sample_packing")
         and len(c.get("datasets") or []) > 1,
         "several streamed data sets cannot be packed", "--set data.packing=false"),
    Rule(13, ("warmup_steps", "warmup_ratio"),
         lambda c: on(c, "warmup_steps", "warmup_ratio") == 2,
         "warmup_steps and warmup_ratio exclude each other", "keep one of the two"),
    Rule(14, ("save_steps", "saves_per_epoch", "save_strategy"),
         lambda c: _steps_and(c, "save") or on(c, "saves_per_epoch", "save_steps") == 2
         or (c.get("save_strategy") == "best" and not c.get("metric_for_best_model")),
         "save_steps, saves_per_epoch and another save_strategy exclude each other; `best` needs "
         "metric_for_best_model", "say it once: training.save"),
    Rule(15, ("eval_steps", "evals_per_epoch", "eval_strategy"),
         lambda c: _steps_and(c, "eval") or on(c, "evals_per_epoch", "eval_steps") == 2
         or (c.get("evals_per_epoch") and c.get("eval_strategy") not in (None, "steps")),
         "eval_steps, evals_per_epoch and another eval_strategy exclude each other",
         "say it once: training.evaluate"),
    Rule(16, ("early_stopping_patience",),
         lambda c: c.get("early_stopping_patience") and (
             on(c, "save_steps", "eval_steps") < 2
             or number(c, "save_steps") % number(c, "eval_steps")),
         "axolotl stops early only if evaluate and save are numbers of steps, and each save "
         "follows an evaluation", "--set training.evaluate=100 --set training.save=100"),
    Rule(17, ("batch_size",), lambda c: on(c, "batch_size", "gradient_accumulation_steps") == 2,
         "batch_size and gradient accumulation exclude each other", "remove batch_size"),
    Rule(18, ("sample_packing",), lambda c: on(c, "sample_packing", "rl") == 2,
         "preference data cannot be packed", "--set data.packing=false"),
    Rule(19, ("remove_unused_columns",),
         lambda c: c.get("rl") == "kto" and c.get("remove_unused_columns") is not False,
         "KTO needs remove_unused_columns: false"),
    Rule(20, ("load_in_4bit", "load_in_8bit", "adapter"),
         lambda c: (on(c, "load_in_4bit", "load_in_8bit") and not c.get("adapter"))
         or (c.get("adapter") == "qlora"
             and (not c.get("load_in_4bit") or on(c, "load_in_8bit", "gptq"))),
         "adapter and quantization do not fit together",
         "set model.quantization and adapter.type instead"),
    Rule(21, (*KERNELS, "trust_remote_code"),
         lambda c: on(c, *KERNELS) and (on(c, "load_in_8bit", "trust_remote_code")
                                        or (c.get("fsdp_config") and not _fsdp2(c))),
         "the fused LoRA kernels exclude 8-bit weights, trust_remote_code and FSDP 1",
         "remove lora_*_kernel"),
    Rule(22, ("lora_target_parameters", "lora_target_modules", "peft_layers_pattern"),
         lambda c: (c.get("lora_target_parameters") and c.get("lora_dropout")) or _bad_regex(c)
         or (c.get("peft_layers_pattern") and not c.get("peft_layers_to_transform")),
         "LoRA targets: parameters exclude dropout, a pattern must be a regular expression, "
         "peft_layers_pattern needs peft_layers_to_transform"),
    Rule(23, ("lr_groups",), lambda c: on(c, "lr_groups", "loraplus_lr_ratio") == 2,
         "lr_groups and LoRA+ exclude each other"),
    Rule(24, ("attn_implementation", *ATTENTION_FLAGS),
         lambda c: (c.get("attn_implementation") and on(c, *ATTENTION_FLAGS))
         or c.get("attn_implementation") in ("flash", "flex", "sdp"),
         "the attention is named twice, or by a short name", "set model.attention only"),
    Rule(26, ("context_parallel_size",),
         lambda c: number(c, "context_parallel_size") > 1 and (
             c.get("attn_implementation") != "flash_attention_2"
             or (c.get("sample_packing") and number(c, "micro_batch_size") > 1)),
         "context parallelism needs flash_attention_2, and one packed sequence per batch",
         "--set model.attention=flash_attention_2 --set training.micro_batch_size=1"),
    Rule(27, ("tensor_parallel_size",),
         lambda c: number(c, "tensor_parallel_size") > 1 and (
             c.get("optimizer") in EIGHT_BIT
             or on(c, "liger_rms_norm", "liger_cross_entropy",
                   "liger_fused_linear_cross_entropy")),
         "tensor parallelism excludes 8-bit optimizers and liger's norm and losses",
         "--set training.optimizer=adamw_torch"),
    Rule(28, LOSSES, lambda c: on(c, *LOSSES) > 1, "only one fused loss at a time"),
    Rule(29, ("cut_cross_entropy", "liger_swiglu", "liger_use_token_scaling"),
         lambda c: (c.get("cut_cross_entropy") and not on(c, "bf16", "fp16"))
         or on(c, "liger_swiglu", "liger_glu_activation") == 2
         or (c.get("liger_use_token_scaling") and not c.get("liger_fused_linear_cross_entropy")),
         "these kernels exclude each other, or need half precision or the fused loss"),
    Rule(30, ("activation_offloading", "gradient_checkpointing"),
         lambda c: c.get("activation_offloading") and not c.get("gradient_checkpointing"),
         "activation_offloading needs gradient checkpointing",
         "--set training.gradient_checkpointing=true"),
    Rule(31, ("deepspeed", "fsdp", "fsdp_config"),
         lambda c: c.get("deepspeed") and on(c, "fsdp", "fsdp_config"),
         "DeepSpeed and FSDP exclude each other", "set distributed.strategy only"),
    Rule(32, ("optimizer",),
         lambda c: (c.get("optimizer") == "muon"
                    and (c.get("deepspeed") or (c.get("fsdp_config") and not _fsdp2(c))))
         or (c.get("optimizer") == "q_galore_adamw8bit" and on(c, "adapter", "deepspeed"))
         or (c.get("optimizer") == "polora" and (not c.get("adapter") or c.get("deepspeed")))
         or (str(c.get("optimizer", "")).startswith("flash_") and c.get("deepspeed")),
         "this optimizer does not work with this adapter or this sharding",
         "--set training.optimizer=adamw_torch"),
    Rule(33, ("optimizer",),
         lambda c: (_fsdp2(c) and c.get("optimizer") in ("adamw_8bit", "adamw_bnb_8bit"))
         or (c.get("fsdp_config") and not _fsdp2(c) and _fsdp(c, "offload_params")
             and "8bit" in str(c.get("optimizer"))),
         "this 8-bit optimizer cannot be sharded by FSDP",
         "--set training.optimizer=adamw_torch"),
    Rule(34, ("fsdp_version", "load_in_4bit", "rl"),
         lambda c: _fsdp2(c) and (
             (c.get("load_in_4bit") and _fsdp(c, "cpu_ram_efficient_loading"))
             or (on(c, "load_in_4bit", "load_in_8bit")
                 and c.get("rl") in ("dpo", "kto", "orpo", "ipo"))),
         "FSDP 2 cannot train preferences on a quantized base, nor load one sparingly",
         "--set distributed.strategy=deepspeed"),
    Rule(37, ("deepcompile",), lambda c: c.get("deepcompile") and not c.get("deepspeed"),
         "deepcompile needs DeepSpeed", "--set distributed.strategy=deepspeed"),
    Rule(38, ("relora",),
         lambda c: c.get("relora") and (not c.get("jagged_restart_steps") or not c.get("adapter")
                                        or on(c, "fsdp_config", "deepspeed")),
         "ReLoRA needs jagged_restart_steps and a LoRA, and cannot be sharded"),
    Rule(40, ("qat", "model_quantization_config"),
         lambda c: on(c, "qat", "model_quantization_config")
         and on(c, "load_in_4bit", "load_in_8bit"),
         "quantization-aware training and quantized checkpoints exclude a base loaded in 4 or "
         "8 bit", "--set model.quantization=none"),
    Rule(41, ("tokenizer_use_mistral_common",),
         lambda c: c.get("tokenizer_use_mistral_common")
         and on(c, "chat_template", "special_tokens", "tokens", "added_tokens_overrides"),
         "mistral_common has its own template and tokens", "remove the others"),
    Rule(42, ("chat_template",),
         lambda c: c.get("chat_template") == "jinja" and not c.get("chat_template_jinja"),
         "chat_template: jinja needs chat_template_jinja", "data.chat_template: FILE.jinja"),
    Rule(43, ("datasets",),
         lambda c: any(t.startswith("sharegpt") for t in _dataset_types(c)),
         "the type sharegpt is gone", "format: sharegpt in data.sources"),
    Rule(44, ("push_dataset_to_hub", "dataset_exact_deduplication"),
         lambda c: (c.get("push_dataset_to_hub") and not c.get("hf_use_auth_token"))
         or (c.get("dataset_exact_deduplication")
             and on(c, "streaming", "skip_prepare_dataset")),
         "pushing a data set needs hf_use_auth_token, deduplication a prepared data set"),
    Rule(45, ("gpu_memory_limit", "unfrozen_parameters", "neftune_noise_alpha"),
         lambda c: on(c, "gpu_memory_limit", "max_memory") == 2
         or number(c, "neftune_noise_alpha") < 0,
         "gpu_memory_limit excludes max_memory; NEFTune's noise is above 0"),
    Rule(46, ("trl", "rl"),
         lambda c: c.get("rl") == "grpo" and _group(c) and (
             _group(c) < 2
             or number(c, "micro_batch_size") * number(c, "gradient_accumulation_steps")
             % _group(c)),
         "GRPO: the batch must be a multiple of num_generations, which is at least 2",
         "change training.gradient_accumulation"),
    Rule(47, ("dpo_loss_type",),
         lambda c: c.get("dpo_loss_type") and c.get("rl") != "dpo",
         "dpo_loss_type needs rl: dpo"),
    Rule(48, ("rl",),
         lambda c: c.get("rl") not in (None, "dpo", "gdpo", "grpo", "ipo", "orpo", "kto", "simpo",
                                       "ebft"),
         "axolotl has no such rl"),
    Rule(49, REMOVED, lambda c: on(c, *REMOVED) or c.get("save_safetensors") is False
         or any(k.startswith("unsloth_") and v for k, v in c.items()),
         "this option was removed from axolotl 0.19.0", "remove it"),
    Rule(50, ("torch_compile_options",),
         lambda c: c.get("torch_compile_options") and not c.get("torch_compile"),
         "torch_compile_options needs torch_compile"),
    Rule(62, ("adapter", "load_in_4bit"),
         lambda c: c.get("adapter") == "lora" and c.get("load_in_4bit"),
         "adapter: lora with load_in_4bit trains an unquantized base without a word",
         "--set model.quantization=nf4"),
    Rule(63, ("adapter",),
         lambda c: c.get("adapter") in ("lora", "qlora") and not (
             c.get("lora_r") and c.get("lora_alpha")
             and on(c, "lora_target_modules", "lora_target_linear", "lora_target_parameters")),
         "a LoRA without rank, alpha or targets ends only after the model is loaded"),
    Rule(69, ("chat_template",),
         lambda c: str(c.get("chat_template", "")).startswith(("mistral_v", "pixtral"))
         and c.get("default_system_message"),
         "axolotl's Mistral templates drop the system prompt", "put it into the first user turn",
         "warning"),
    Rule(75, ("val_set_size",),
         lambda c: c.get("val_set_size") and c.get("eval_strategy") in (None, "no")
         and not on(c, "eval_steps", "evals_per_epoch"),
         "rows are held out and never evaluated", "--set training.evaluate=epoch", "warning"),
    Rule(83, ("rl",), lambda c: c.get("rl") == "simpo" and c.get("simpo_gamma") is None,
         "SimPO without simpo_gamma ends in its first step"),
    Rule(84, ("neftune_noise_alpha", "group_by_length", "dataloader_drop_last"),
         lambda c: c.get("rl") and on(c, "neftune_noise_alpha", "group_by_length",
                                      "dataloader_drop_last"),
         "axolotl ignores NEFTune, group_by_length and dataloader_drop_last in preference "
         "training", "remove it", "warning"),
    Rule(87, ("tokens", "special_tokens", "added_tokens_overrides"),
         lambda c: c.get("tokens") and c.get("adapter")
         and not {"embed_tokens", "lm_head"} <= set(c.get("lora_modules_to_save") or ()),
         "new tokens get no embedding of their own: a LoRA leaves the embeddings as they are",
         "--set 'adapter.modules_to_save=[embed_tokens, lm_head]'"),
    Rule(91, ("attn_implementation", "sample_packing"),
         lambda c: c.get("sample_packing")
         and not on(c, "attn_implementation", *ATTENTION_FLAGS),
         "packed rows see each other without an attention that keeps them apart",
         "--set model.attention=flash_attention_2, or sdpa", "warning"),
)  # fmt: skip
