"""Rules on LLaMA-Factory 0.9.5 configurations: its checks, and what they leave out.

It compares names only: types and most choices are ours to check (`native_types`).
"""

from orchestrator.checks.rules import Config, Rule, number, on

SPECIAL = ("use_galore", "use_apollo", "use_badam")
LORA_ONLY = ("loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init")
SFT_ONLY = ("neat_packing", "train_on_prompt", "mask_history")


def _lora(config: Config) -> bool:
    return config.get("finetuning_type") == "lora"


def _streams(config: Config) -> bool:
    return bool(config.get("streaming"))


def _evaluates(config: Config) -> bool:
    return config.get("eval_strategy") not in (None, "no")


def _interleaving(config: Config) -> bool:
    probabilities = config.get("interleave_probs")
    if not probabilities:
        return False
    given = probabilities.split(",") if isinstance(probabilities, str) else probabilities
    wanted = str(config.get("dataset", "")).split(",")
    return config.get("mix_strategy", "concat") == "concat" or len(given) != len(wanted)


RULES: tuple[Rule, ...] = (
    Rule(10, ("adapter_name_or_path",),
         lambda c: c.get("adapter_name_or_path") and not _lora(c),
         "an adapter to go on from needs a LoRA", "--set adapter.type=lora"),
    Rule(11, ("quantization_bit", "pissa_init", "resize_vocab"),
         lambda c: c.get("quantization_bit")
         and (c.get("finetuning_type") not in ("lora", "oft")
              or on(c, "pissa_init", "resize_vocab")),
         "a quantized base takes adapters only, and neither PiSSA nor a resized vocabulary",
         "--set model.quantization=none"),
    Rule(12, (*SPECIAL, *LORA_ONLY, "use_llama_pro"),
         lambda c: (_lora(c) and on(c, *SPECIAL)) or on(c, *SPECIAL) > 1
         or (not _lora(c) and on(c, *LORA_ONLY))
         or (c.get("use_llama_pro") and c.get("finetuning_type") == "full"),
         "GaLore, APOLLO and BAdam exclude each other and a LoRA; LoRA variants need one",
         "set adapter.type"),
    Rule(13, ("pissa_init", "pure_bf16"),
         lambda c: c.get("pissa_init") and c.get("stage") in ("ppo", "kto"),
         "PiSSA changes the base, which is the reference model of this stage"),
    Rule(14, ("bf16", "fp16", "pure_bf16"), lambda c: on(c, "bf16", "fp16") == 2,
         "bf16 and fp16 exclude each other", "set model.dtype only"),
    Rule(17, ("resize_vocab",),
         lambda c: c.get("resize_vocab") and _lora(c) and not c.get("additional_target"),
         "a resized vocabulary is not trained by a LoRA",
         "--set 'adapter.modules_to_save=[embed_tokens, lm_head]'"),
    Rule(18, (*SPECIAL, "galore_layerwise", "apollo_layerwise"),
         lambda c: on(c, "galore_layerwise", "apollo_layerwise")
         and number(c, "gradient_accumulation_steps") > 1,
         "layer-wise GaLore and APOLLO cannot accumulate gradients",
         "--set training.gradient_accumulation=1"),
    Rule(20, ("eval_strategy", "eval_dataset", "val_size"),
         lambda c: on(c, "val_size", "eval_dataset") == 2
         or ((_evaluates(c) or c.get("do_predict")) and not on(c, "val_size", "eval_dataset")),
         "evaluation needs one of val_size and eval_dataset", "--set data.validation=0.02"),
    Rule(21, ("streaming",),
         lambda c: _streams(c) and (not number(c, "max_steps") > 0 or c.get("max_samples")
                                    or 0 < number(c, "val_size") < 1),
         "streamed data needs steps, validation as a number of rows, and no max_samples",
         "--set training.steps=1000 --set training.epochs=null"),
    Rule(22, ("interleave_probs", "mask_history"),
         lambda c: _interleaving(c) or on(c, "mask_history", "train_on_prompt") == 2,
         "interleave_probs needs one number per data set and a mix_strategy that interleaves; "
         "mask_history excludes train_on_prompt"),
    Rule(23, (*SFT_ONLY, "predict_with_generate"),
         lambda c: c.get("stage") != "sft" and on(c, *SFT_ONLY, "predict_with_generate"),
         "neat_packing, train_on_prompt, mask_history and generation are for sft only"),
    Rule(30, ("reward_model", "stage"),
         lambda c: c.get("stage") == "ppo" and not c.get("reward_model"),
         "PPO needs a reward model"),
    Rule(31, ("load_best_model_at_end", "dpo_label_smoothing"),
         lambda c: (c.get("stage") in ("rm", "ppo") and c.get("load_best_model_at_end"))
         or (c.get("dpo_label_smoothing") and c.get("pref_loss", "sigmoid") != "sigmoid"),
         "reward models cannot keep the best one; label smoothing is for the sigmoid loss"),
    Rule(32, (*SPECIAL, "deepspeed", "use_unsloth"),
         lambda c: c.get("deepspeed") and on(c, "use_galore", "use_apollo"),
         "GaLore and APOLLO do not work with DeepSpeed", "--set distributed.strategy=none"),
    Rule(33, ("load_best_model_at_end", "fp8", "infer_backend"),
         lambda c: on(c, "fp8", "quantization_bit") == 2
         or c.get("infer_backend", "huggingface") != "huggingface"
         or (c.get("load_best_model_at_end") and (
             c.get("save_strategy") != c.get("eval_strategy")
             or number(c, "save_steps") % (number(c, "eval_steps") or 1))),
         "the best model is kept only if each save follows an evaluation; fp8 excludes a "
         "quantized base; training has no inference backend",
         "--set training.evaluate=100 --set training.save=100"),
    Rule(35, ("warmup_ratio", "warmup_steps"),
         lambda c: c.get("warmup_ratio") is not None and c.get("warmup_steps"),
         "warmup_ratio wins over warmup_steps without a word", "keep one of the two", "warning"),
    Rule(36, ("report_to",),
         lambda c: "trackio" in str(c.get("report_to")) and not c.get("project"),
         "trackio needs a project"),
    Rule(37, ("flash_attn",), lambda c: c.get("flash_attn") == "fa3",
         "llamafactory 0.9.5 has flash attention 3 for gpt-oss only",
         "--set model.attention=flash_attention_2"),
    Rule(75, ("val_size",),
         lambda c: on(c, "val_size", "eval_dataset") and not _evaluates(c),
         "rows are held out and never evaluated", "--set training.evaluate=epoch", "warning"),
    Rule(77, ("do_train",), lambda c: not c.get("do_train"),
         "without do_train llamafactory ends well and has trained nothing", "remove do_train"),
    Rule(78, ("overwrite_cache",), lambda c: on(c, "overwrite_cache", "tokenized_path") == 2,
         "overwrite_cache does nothing where tokenized_path is set", "remove it", "warning"),
    Rule(87, ("add_tokens", "add_special_tokens", "new_special_tokens_config"),
         lambda c: on(c, "add_tokens", "add_special_tokens") and (
             not c.get("resize_vocab") or (_lora(c) and not c.get("additional_target"))),
         "new tokens get no embedding of their own",
         "resize_vocab: true, and adapter.modules_to_save: [embed_tokens, lm_head] with a LoRA"),
    Rule(91, ("packing", "neat_packing"),
         lambda c: c.get("packing") and not c.get("neat_packing") and c.get("stage") == "sft",
         "packed rows see each other without neat_packing", "--set data.packing=true", "warning"),
)  # fmt: skip
