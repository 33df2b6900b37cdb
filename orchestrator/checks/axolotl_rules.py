"""Rules on axolotl 0.19.0 configurations: its validators, and what they leave out.

Kept to what can be rendered: keys that only appear through `native` count, since a recipe may hold
any of them.
"""

import re
from typing import Any

from orchestrator.backends.keys import load_keys
from orchestrator.checks.axolotl_types import dataset_model
from orchestrator.checks.rules import PROCESSES, Config, Rule, number, on

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
ATTENTIONS = {
    "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4",
    "flash_attention_torch", "flex_attention", "xformers", "sage", "fp8",
}  # fmt: skip
SWANLAB = "axolotl.integrations.swanlab.SwanLabPlugin"
METRICS = {"sacrebleu", "comet", "ter", "chrf", "perplexity"}
INDUCTOR = {
    "coordinate_descent_tuning", "coordinate_descent_check_all_directions", "shape_padding",
    "epilogue_fusion", "max_autotune_gemm", "fx_graph_cache", "assume_aligned_inputs",
    "comprehensive_padding", "decompose_mem_bound_mm", "triton.cudagraphs",
}  # fmt: skip
WITHOUT_POLORA = (
    "lora_modules_to_save", "unfrozen_parameters", "peft_use_dora", "peft_trainable_token_indices",
    "lisa_step_interval", "reward_model", "process_reward_model", "loraplus_lr_ratio", "lr_groups",
    "embedding_lr", "embedding_lr_scale", "relora_steps",
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
    try:
        for target in [targets] if isinstance(targets, str) else targets or ():
            re.compile(target)
    except re.error:
        return True
    return False


def _inner(config: Config, section: str, key: str) -> Any:
    """A key of a section."""
    inner = config.get(section)
    return inner.get(key) if isinstance(inner, dict) else None


def _sharded_by_fsdp1(config: Config) -> bool:
    return bool(on(config, "fsdp", "fsdp_config")) and not _fsdp2(config)


def _reentrant(config: Config) -> bool:
    return _inner(config, "gradient_checkpointing_kwargs", "use_reentrant") is True


def _group_misfits(config: Config) -> bool:
    """GRPO's batch is made of whole groups, one per process at least."""
    trl = config.get("trl")
    if config.get("rl") != "grpo" or not isinstance(trl, dict) or not trl.get("num_generations"):
        return False
    group = number(trl, "num_generations")
    accumulated = (number(config, "micro_batch_size") or 1) * (
        number(config, "gradient_accumulation_steps") or 1
    )
    batch = number(trl, "generation_batch_size") or accumulated
    processes = number(config, PROCESSES)
    return group < 2 or batch % group != 0 or (processes > 1 and batch < group * processes)


def _bad_losses(config: Config) -> bool:
    kinds, weights = config.get("dpo_loss_type"), config.get("dpo_loss_weights")
    if config.get("rl") != "dpo":
        return kinds is not None or weights is not None
    return weights is not None and (kinds is None or len(kinds) != len(weights))


def _strided(config: Config) -> bool:
    return config.get("rl") == "ebft" and _inner(config, "ebft", "mode") == "strided"


def _bad_sac(config: Config) -> Any:
    """Selective checkpointing saves what nothing else moves or changes."""
    chosen = config.get("selective_checkpointing")
    if not chosen:
        return False
    saved = chosen.get("save", ()) if isinstance(chosen, dict) else ()
    products = ("aten::mm", "aten::addmm", "aten::matmul", "aten::bmm")
    matched = any(one != "attention" and any(one in op for op in products) for one in saved)
    return (
        not config.get("gradient_checkpointing")
        or _reentrant(config)
        or config.get("activation_offloading") not in (None, False, "hidden_states")
        or (config.get("adapter") and matched)
    )


def _base(config: Config, name: str) -> bool:
    return name in str(config.get("base_model", "")).lower()


def _lost_in_entries(config: Config) -> bool:
    """Keys that the model which reads the entries does not have."""
    known = {*load_keys("axolotl")["models"][dataset_model(config)], "ds_type"}
    return any(set(entry) - known for entry in config.get("datasets") or ())


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
         or (c.get("evals_per_epoch") and c.get("eval_strategy") not in (None, "steps"))
         or (c.get("val_set_size") == 0 and not c.get("test_datasets")
             and on(c, "eval_steps", "eval_strategy") and c.get("eval_strategy") != "no")
         or (c.get("do_bench_eval") and not on(c, "evals_per_epoch", "eval_steps")),
         "eval_steps, evals_per_epoch and another eval_strategy exclude each other; each needs "
         "data to evaluate on",
         "say it once: training.evaluate"),
    Rule(16, ("early_stopping_patience",),
         lambda c: c.get("early_stopping_patience") and (
             on(c, "save_steps", "eval_steps") < 2
             or number(c, "save_steps") % number(c, "eval_steps")),
         "axolotl stops early only if evaluate and save are numbers of steps, and each save "
         "follows an evaluation", "--set training.evaluate=100 --set training.save=100"),
    Rule(17, ("batch_size",), lambda c: on(c, "batch_size", "gradient_accumulation_steps") == 2,
         "batch_size and gradient accumulation exclude each other", "remove batch_size"),
    Rule(18, ("sample_packing", "eval_sample_packing"),
         lambda c: on(c, "sample_packing", "rl") == 2
         or (c.get("rl") == "kto" and c.get("eval_sample_packing")),
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
    Rule(22, ("peft_layers_to_transform", "flash_attn_fuse_mlp", "use_onebitllms"),
         lambda c: c.get("adapter") and (
             on(c, "peft_layers_to_transform", "unfrozen_parameters") == 2
             or on(c, "flash_attn_fuse_mlp", "use_onebitllms")),
         "an adapter excludes fused MLPs and onebitllms, and unfrozen_parameters beside "
         "peft_layers_to_transform", "--set adapter.type=none, or remove it"),
    Rule(23, ("lr_groups",), lambda c: on(c, "lr_groups", "loraplus_lr_ratio") == 2,
         "lr_groups and LoRA+ exclude each other"),
    Rule(24, ("attn_implementation", *ATTENTION_FLAGS),
         lambda c: (c.get("attn_implementation") and on(c, *ATTENTION_FLAGS))
         or c.get("attn_implementation") in ("flash", "flex", "sdp"),
         "the attention is named twice, or by a short name", "set model.attention only"),
    Rule(24, ("attn_implementation",),
         lambda c: c.get("attn_implementation") and "/" not in c["attn_implementation"]
         and c["attn_implementation"] not in ATTENTIONS,
         "axolotl has no such attention", f"one of {', '.join(sorted(ATTENTIONS))}"),
    Rule(25, ("scaling_softmax", "gemma4_hybrid_attn_impl"),
         lambda c: (c.get("scaling_softmax") and c.get("attn_implementation") != "flex_attention")
         or (c.get("gemma4_hybrid_attn_impl")
             and c.get("attn_implementation", "flash_attention_2") != "flash_attention_2"),
         "scaling_softmax needs flex_attention, gemma4_hybrid_attn_impl flash_attention_2",
         "--set model.attention=..."),
    Rule(18, ("eval_table_size", "eval_sample_packing"),
         lambda c: (on(c, "sample_packing", "eval_table_size") == 2
                    and c.get("eval_sample_packing") is not False)
         or on(c, "do_causal_lm_eval", "eval_sample_packing") == 2,
         "tables and metrics of generated text need evaluation data that is not packed",
         "--set data.packing_evaluation=false"),
    Rule(18, ("eval_causal_lm_metrics",),
         lambda c: c.get("eval_causal_lm_metrics") and (
             not isinstance(c["eval_causal_lm_metrics"], list)
             or set(c["eval_causal_lm_metrics"]) - METRICS),
         f"eval_causal_lm_metrics is a list of {', '.join(sorted(METRICS))}"),
    Rule(35, ("fp8_config", "fp8_enable_fsdp_float8_all_gather"),
         lambda c: (c.get("fp8_config") is not None and not c.get("fp8"))
         or (c.get("fp8_enable_fsdp_float8_all_gather")
             and (c.get("fsdp_version") != 2
                  or (_inner(c, "fp8_config", "recipe") or "tensorwise") != "tensorwise")),
         "fp8_config needs fp8: true; the float8 all-gather needs FSDP 2 and the tensorwise recipe",
         "--set distributed.strategy=fsdp, or remove it"),
    Rule(45, ("unfrozen_parameters",),
         lambda c: c.get("unfrozen_parameters") and _reentrant(c),
         "a partly frozen model cannot be checkpointed reentrantly",
         "--set training.reentrant=false"),
    Rule(30, ("selective_checkpointing",), _bad_sac,
         "selective checkpointing needs gradient checkpointing that is not reentrant and nothing "
         "else that moves activations; with an adapter it saves no matrix products",
         "--set training.gradient_checkpointing=true --set training.reentrant=false"),
    Rule(51, ("plugins", "use_swanlab"),
         lambda c: SWANLAB in (c.get("plugins") or ()) and (
             (c.get("use_swanlab") is not False and not c.get("swanlab_project"))
             or c.get("swanlab_mode") not in (None, "cloud", "local", "offline", "disabled")),
         "the SwanLab plugin is on by itself: it needs swanlab_project, and swanlab_mode is cloud, "
         "local, offline or disabled", "tracking: {swanlab_project: ...}"),
    Rule(54, ("batch_flattening",),
         lambda c: c.get("batch_flattening") and c["batch_flattening"] != "auto" and (
             c.get("sample_packing") or not c.get("attn_implementation")
             or c["attn_implementation"] in ("sdpa", "eager", "fp8")),
         "batch_flattening needs flash_attention_2 (or another attention for packed rows) and "
         "excludes packing", "--set data.batch_flattening=auto"),
    Rule(39, ("quantize_moe_experts", "ple_cpu_offload"),
         lambda c: (c.get("quantize_moe_experts") and (
             c.get("lora_target_linear") or c.get("adapter") not in ("lora", "qlora")
             or not on(c, "load_in_4bit", "load_in_8bit")))
         or (c.get("ple_cpu_offload") and (
             on(c, "fsdp", "fsdp_config", "deepspeed")
             or (c.get("adapter"), bool(c.get("load_in_4bit")), bool(c.get("load_in_8bit")))
             not in (("qlora", True, False), ("lora", False, True), ("lora", True, True)))),
         "quantized experts and offloaded embeddings need a LoRA on a quantized base; experts "
         "exclude `all-linear`, offloaded embeddings any sharding",
         "--set model.quantization=nf4, and name the modules in adapter.targets"),
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
                    and (c.get("deepspeed") or _sharded_by_fsdp1(c)))
         or (c.get("optimizer") == "q_galore_adamw8bit" and (
             on(c, "adapter", "deepspeed") or _sharded_by_fsdp1(c)
             or (_fsdp2(c) and _fsdp(c, "use_orig_params") is not True)))
         or (c.get("optimizer") == "polora" and (
             not c.get("adapter") or c.get("deepspeed") or _sharded_by_fsdp1(c)
             or number(c, "tensor_parallel_size") > 1 or on(c, *WITHOUT_POLORA)))
         or (str(c.get("optimizer", "")).startswith("flash_")
             and (c.get("deepspeed") or _sharded_by_fsdp1(c))),
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
    Rule(36, ("fsdp_config",),
         lambda c: (_fsdp(c, "cpu_offload_pin_memory") is False
                    and (not _fsdp2(c) or not _fsdp(c, "offload_params")))
         or (_fsdp(c, "auto_wrap_policy") == "SIZE_BASED_WRAP"
             and _fsdp(c, "min_num_params") is None)
         or (c.get("model_quantization_config") == "Mxfp4Config"
             and _fsdp(c, "cpu_ram_efficient_loading") is True),
         "FSDP: unpinned memory needs FSDP 2 with offload_params, SIZE_BASED_WRAP needs "
         "min_num_params, Mxfp4 excludes cpu_ram_efficient_loading", "change distributed.fsdp"),
    Rule(35, ("fp32_norms",),
         lambda c: c.get("fp32_norms") and not (_fsdp2(c) and c.get("fsdp_config")),
         "fp32_norms needs FSDP 2", "--set distributed.strategy=fsdp"),
    Rule(37, ("deepcompile",), lambda c: c.get("deepcompile") and not c.get("deepspeed"),
         "deepcompile needs DeepSpeed", "--set distributed.strategy=deepspeed"),
    Rule(38, ("relora",),
         lambda c: c.get("relora") and (not c.get("jagged_restart_steps") or not c.get("adapter")
                                        or on(c, "fsdp", "fsdp_config", "deepspeed")
                                        or c.get("lr_scheduler") == "one_cycle"),
         "ReLoRA needs jagged_restart_steps and a LoRA, and excludes sharding and one_cycle"),
    Rule(45, ("base_model",),
         lambda c: (_base(c, "falcon") and c.get("fsdp"))
         or (_base(c, "mpt") and c.get("gradient_checkpointing")),
         "axolotl refuses FSDP for a base that is named falcon, gradient checkpointing for one "
         "that is named mpt", "remove it, or name a local folder without that word"),
    Rule(40, ("revision_of_model", "model_revision", "gptq"),
         lambda c: c.get("gptq") and on(c, "revision_of_model", "model_revision"),
         "axolotl takes no revision of a GPTQ model", "name a local copy of that revision"),
    Rule(40, ("qat", "model_quantization_config"),
         lambda c: on(c, "qat", "model_quantization_config")
         and (on(c, "load_in_4bit", "load_in_8bit") or (
             c.get("qat") and (c.get("peft") or (
                 _inner(c, "qat", "weight_dtype") == "ternary"
                 and _inner(c, "qat", "activation_dtype") not in (None, "int8"))))),
         "quantization-aware training and quantized checkpoints exclude a base loaded in 4 or "
         "8 bit and the section peft; ternary weights take int8 activations",
         "--set model.quantization=none"),
    Rule(41, ("tokenizer_use_mistral_common",),
         lambda c: c.get("tokenizer_use_mistral_common")
         and on(c, "chat_template", "special_tokens", "tokens", "added_tokens_overrides",
                "processor_kwargs"),
         "mistral_common has its own template and tokens", "remove the others"),
    Rule(42, ("chat_template",),
         lambda c: any(one.get("chat_template") == "jinja" and not one.get("chat_template_jinja")
                       for one in (c, *(c.get("datasets") or ()))),
         "chat_template: jinja needs chat_template_jinja", "data.chat_template: FILE.jinja"),
    Rule(43, ("datasets",),
         lambda c: any(t.startswith("sharegpt") for t in _dataset_types(c)),
         "the type sharegpt is gone", "format: sharegpt in data.sources"),
    Rule(44, ("push_dataset_to_hub", "dataset_exact_deduplication"),
         lambda c: (c.get("push_dataset_to_hub") and not c.get("hf_use_auth_token"))
         or (c.get("dataset_exact_deduplication")
             and on(c, "streaming", "skip_prepare_dataset", "pretraining_dataset"))
         or on(c, "pretraining_dataset", "include_tokens_per_second") == 2,
         "pushing a data set needs hf_use_auth_token, deduplication a prepared data set; streamed "
         "data has no tokens per second"),
    Rule(45, ("gpu_memory_limit", "unfrozen_parameters", "neftune_noise_alpha"),
         lambda c: on(c, "gpu_memory_limit", "max_memory") == 2
         or (c.get("neftune_noise_alpha") is not None and number(c, "neftune_noise_alpha") <= 0),
         "gpu_memory_limit excludes max_memory; NEFTune's noise is above 0"),
    Rule(46, ("trl", "rl"),
         _group_misfits,
         "GRPO: the batch must be a multiple of num_generations, which is at least 2, and hold one "
         "such group per process",
         "change training.gradient_accumulation"),
    Rule(47, ("dpo_loss_type", "dpo_loss_weights"), _bad_losses,
         "dpo_loss_type and dpo_loss_weights need rl: dpo, and one weight per loss"),
    Rule(47, ("dpo_use_liger_kernel",),
         lambda c: c.get("dpo_use_liger_kernel")
         and (c.get("rl") == "ipo" or "ipo" in (c.get("dpo_loss_type") or ())[:1]),
         "Liger has no IPO loss", "remove dpo_use_liger_kernel"),
    Rule(46, ("rl", "trl"),
         lambda c: (c.get("rl") == "gdpo" and _inner(c, "trl", "multi_objective_aggregation")
                    == "sum_then_normalize")
         or (c.get("rl") == "grpo" and _inner(c, "trl", "use_liger_loss")
             and number(c, "context_parallel_size") > 1)
         or (c.get("beta") and _inner(c, "trl", "beta") not in (None, 0, c["beta"])),
         "GDPO normalizes before it sums, GRPO's Liger loss takes no context parallelism, and beta "
         "is said once"),
    Rule(48, ("ebft",),
         lambda c: (c.get("rl") == "ebft" and not c.get("ebft")) or (_strided(c) and (
             (c.get("torch_compile") is True and c.get("gradient_checkpointing"))
             or (c.get("activation_offloading") is True
                 and c.get("attn_implementation") == "flex_attention"))),
         "EBFT needs a section ebft; strided, it excludes torch_compile with gradient "
         "checkpointing, and activation_offloading with flex_attention"),
    Rule(55, ("gradient_checkpointing_kwargs", "rl"),
         lambda c: c.get("rl") and c.get("gradient_checkpointing") and _reentrant(c)
         and c.get("load_in_4bit") and c.get("adapter") == "qlora" and number(c, PROCESSES) > 1,
         "QLoRA in preference training on several GPUs cannot be checkpointed reentrantly",
         "--set training.reentrant=false"),
    Rule(13, ("warmup_ratio",), lambda c: c.get("rl") == "simpo" and c.get("warmup_ratio"),
         "axolotl refuses warmup_ratio with SimPO", "use training.warmup_steps"),
    Rule(48, ("rl",),
         lambda c: c.get("rl") not in (None, "dpo", "gdpo", "grpo", "ipo", "orpo", "kto", "simpo",
                                       "ebft"),
         "axolotl has no such rl"),
    Rule(49, REMOVED, lambda c: on(c, *REMOVED) or c.get("save_safetensors") is False
         or any(k.startswith("unsloth_") and v for k, v in c.items()),
         "this option was removed from axolotl 0.19.0", "remove it"),
    Rule(50, ("torch_compile_options",),
         lambda c: c.get("torch_compile_options") and (
             not c.get("torch_compile") or set(c["torch_compile_options"]) - INDUCTOR),
         f"torch_compile_options needs torch_compile, and takes {', '.join(sorted(INDUCTOR))}"),
    Rule(29, ("liger_glu_activation", "tiled_mlp"),
         lambda c: c.get("liger_glu_activation") is True and c.get("tiled_mlp") is True
         and not c.get("tiled_mlp_use_original_mlp"),
         "Liger's GLU and a tiled MLP exclude each other", "tiled_mlp_use_original_mlp: true"),
    Rule(56, ("plugins",),
         lambda c: any("." not in name for name in c.get("plugins") or ()),
         "a plugin is named by its module and class", "axolotl.integrations.liger.LigerPlugin"),
    Rule(20, ("adapter",),
         lambda c: c.get("adapter") not in (None, "lora", "qlora", "llama-adapter")
         and not c.get("plugins"),
         "axolotl has no such adapter without a plugin", "--set adapter.type=lora"),
    Rule(62, ("adapter", "load_in_4bit"),
         lambda c: c.get("adapter") == "lora" and c.get("load_in_4bit"),
         "adapter: lora with load_in_4bit trains an unquantized base without a word",
         "--set model.quantization=nf4"),
    Rule(63, ("adapter",),
         lambda c: c.get("adapter") in ("lora", "qlora") and not (
             c.get("lora_r") and c.get("lora_alpha")
             and on(c, "lora_target_modules", "lora_target_linear", "lora_target_parameters")),
         "a LoRA without rank, alpha or targets ends only after the model is loaded"),
    Rule(68, ("datasets",), _lost_in_entries,
         "axolotl drops what its model of these rows does not have: in preference data roles, "
         "message_property_mappings, name and chat_template", "rename them in the data",
         "warning"),
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
