"""Rules on LLaMA-Factory 0.9.5 configurations: its checks, and what they leave out.

It compares names only: types and most choices are ours to check (`native_types`).
"""

from typing import Any

from orchestrator.checks.rules import PROCESSES, Config, Rule, number, on

SPECIAL = ("use_galore", "use_apollo", "use_badam")
LORA_ONLY = ("loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init")
PPO_TRACKERS = {"wandb", "tensorboard", "trackio", "none"}
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
    wanted = len(_named(probabilities))
    sets = [_named(config[key]) for key in ("dataset", "eval_dataset") if config.get(key)]
    return config.get("mix_strategy", "concat") == "concat" or any(
        len(names) != wanted for names in sets
    )


def _named(value: Any) -> list[str]:
    """A list, or a text with commas, as llamafactory takes it."""
    parts = value.split(",") if isinstance(value, str) else value or ()
    return [str(part).strip() for part in parts]


def _bad_steps(config: Config) -> bool:
    """transformers: a share below 1 or a whole number, for each cadence by steps."""
    given = {
        "logging": number(config, "logging_steps") if "logging_steps" in config else 1,
        "eval": number(config, "eval_steps"),
        "save": number(config, "save_steps"),
    }
    usual = {"logging": "steps", "eval": "no", "save": "steps"}
    by_steps = [kind for kind in given if config.get(f"{kind}_strategy", usual[kind]) == "steps"]
    broken = any(given[kind] > 1 and not float(given[kind]).is_integer() for kind in by_steps)
    return broken or ("logging" in by_steps and given["logging"] == 0)


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
    Rule(11, ("adapter_name_or_path", "quantization_bit"),
         lambda c: c.get("quantization_bit") and c.get("adapter_name_or_path")
         and (c.get("create_new_adapter") or "," in str(c["adapter_name_or_path"])),
         "a quantized base takes one adapter to go on from, and no new one upon it",
         "merge the adapters first, or --set model.quantization=none"),
    Rule(11, ("quantization_device_map",),
         lambda c: c.get("quantization_bit") and c.get("quantization_device_map") == "auto",
         "a quantized base cannot be spread over devices in training", "remove it"),
    Rule(11, ("ref_model_quantization_bit", "reward_model_quantization_bit"),
         lambda c: any(c.get(f"{name}_quantization_bit") not in (None, 4, 8)
                       for name in ("ref_model", "reward_model")),
         "reference and reward models are quantized to 4 or 8 bit"),
    Rule(12, (*SPECIAL, *LORA_ONLY, "use_llama_pro"),
         lambda c: (_lora(c) and on(c, *SPECIAL)) or on(c, *SPECIAL) > 1
         or (not _lora(c) and on(c, *LORA_ONLY))
         or (c.get("use_llama_pro") and c.get("finetuning_type") == "full"),
         "GaLore, APOLLO and BAdam exclude each other and a LoRA; LoRA variants need one",
         "set adapter.type"),
    Rule(13, ("pissa_init", "pure_bf16"),
         lambda c: c.get("pissa_init") and (
             c.get("stage") in ("ppo", "kto")
             or (c.get("stage") == "dpo" and c.get("pref_loss") not in ("orpo", "simpo"))),
         "PiSSA changes the base, which is the reference model of this stage"),
    Rule(14, ("bf16", "fp16", "pure_bf16"), lambda c: on(c, "bf16", "fp16") == 2,
         "bf16 and fp16 exclude each other", "set model.dtype only"),
    Rule(15, ("image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels"),
         lambda c: any(number(c, f"{kind}_max_pixels") < number(c, f"{kind}_min_pixels")
                       for kind in ("image", "video") if f"{kind}_max_pixels" in c),
         "the smallest number of pixels is above the largest", "change data.media"),
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
         or ((_evaluates(c) or on(c, "do_eval", "do_predict", "predict_with_generate"))
             and not on(c, "val_size", "eval_dataset")),
         "evaluation needs one of val_size and eval_dataset", "--set data.validation=0.02"),
    Rule(20, ("dataset", "tokenized_path"), lambda c: c.get("do_train") and not c.get("dataset"),
         "llamafactory wants the name of a data set even where tokenized_path has its rows",
         "name it in data.sources"),
    Rule(20, ("lr_scheduler_type",),
         lambda c: c.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy")
         and not _evaluates(c),
         "this schedule follows the evaluation, and there is none",
         "--set training.evaluate=epoch"),
    Rule(38, ("logging_steps", "eval_steps", "save_steps"), _bad_steps,
         "a number of steps is whole and above 0, or a share of the run below 1",
         "--set training.evaluate=100, training.save=100 or training.log_every=10"),
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
    Rule(23, ("predict_with_generate", "do_predict"),
         lambda c: on(c, "predict_with_generate", "compute_accuracy") == 2
         or (c.get("do_predict") and not c.get("predict_with_generate")
             and c.get("stage", "sft") == "sft"),
         "predictions need predict_with_generate, which excludes compute_accuracy"),
    Rule(30, ("reward_model", "stage"),
         lambda c: c.get("stage") == "ppo" and not c.get("reward_model"),
         "PPO needs a reward model"),
    Rule(30, ("reward_model_type", "report_to", "shift_attn"),
         lambda c: c.get("stage") == "ppo" and (
             c.get("reward_model_type", "lora") not in ("full", "api", c.get("finetuning_type"))
             or c.get("shift_attn") or set(_named(c.get("report_to"))) - PPO_TRACKERS
             or (c.get("reward_model_type", "lora") == "lora" and on(c, "use_kt", "use_unsloth"))),
         "PPO: a reward model that is a LoRA needs a LoRA (and neither KTransformers nor Unsloth); "
         "only wandb, tensorboard and trackio; no shifted attention",
         "reward_model_type: full, or --set adapter.type=lora"),
    Rule(31, ("load_best_model_at_end", "dpo_label_smoothing"),
         lambda c: (c.get("stage") in ("rm", "ppo") and c.get("load_best_model_at_end"))
         or (c.get("dpo_label_smoothing") and c.get("pref_loss", "sigmoid") != "sigmoid"),
         "reward models cannot keep the best one; label smoothing is for the sigmoid loss"),
    Rule(32, (*SPECIAL, "deepspeed", "use_unsloth"),
         lambda c: c.get("deepspeed") and on(c, "use_galore", "use_apollo"),
         "GaLore and APOLLO do not work with DeepSpeed", "--set distributed.strategy=none"),
    Rule(32, ("galore_layerwise", "apollo_layerwise", "use_badam"),
         lambda c: number(c, PROCESSES) > 1 and (
             on(c, "galore_layerwise", "apollo_layerwise")
             or (c.get("use_badam") and (c.get("badam_mode") == "ratio"
                                         or not c.get("deepspeed")))),
         "layer-wise GaLore and APOLLO take one process; BAdam on several is layer-wise with "
         "DeepSpeed's stage 3", "--set distributed.strategy=none"),
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
         lambda c: "trackio" in str(c.get("report_to")) and not c.get("project", "huggingface"),
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
