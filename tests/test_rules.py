"""Each rule on a rendered configuration fires on its mistake; sound configurations break none.

`MISTAKES` are native keys on top of a sound recipe; `tests/smoke/test_deep.py` asks the backends
about the same table.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.checks import axolotl_rules, check, has_errors, llamafactory_rules
from orchestrator.checks.rules import broken
from orchestrator.recipe.load import load
from orchestrator.recipe.sources import shipped
from tests.helpers import loaded

Case = tuple[int, Mapping[str, Any]]

DPO_ROWS = [{"path": "x", "type": "chatml.intel"}]
LIGER = "axolotl.integrations.liger.LigerPlugin"
SHARDED = {"reshard_after_forward": True}

AXOLOTL: list[Case] = [
    (1, {"lora_r": 32.5}),
    (1, {"train_on_inputs": "maybe"}),
    (1, {"lora_modules_to_save": "embed_tokens"}),
    (1, {"special_tokens": {"pad_token": 0}}),
    (1, {"micro_batch_size": "auto"}),
    (1, {"excess_length_strategy": "cut"}),
    (1, {"rl": "dpo", "datasets": [{**DPO_ROWS[0], "data_files": "x.jsonl"}]}),
    (1, {"fsdp_version": 2, "fsdp_config": {"state_dict_type": "HALF_STATE_DICT"}}),
    (4, {"warmup_steps": 0.1}),
    (5, {"eval_strategy": False}),
    (6, {"tokens": {"a": "b"}}),
    (8, {"bf16": "full"}),
    (10, {"val_set_size": 0.1, "test_datasets": [{"path": "x", "type": "alpaca"}]}),
    (11, {"streaming": True}),
    (13, {"warmup_steps": 5, "warmup_ratio": 0.1}),
    (14, {"save_strategy": "epoch", "save_steps": 5}),
    (14, {"save_strategy": "best"}),
    (15, {"eval_strategy": "epoch", "eval_steps": 5, "val_set_size": 0.1}),
    (13, {"rl": "simpo", "warmup_ratio": 0.1, "simpo_gamma": 0.5, "datasets": DPO_ROWS}),
    (15, {"val_set_size": 0, "eval_steps": 5}),
    (15, {"val_set_size": 0.1, "do_bench_eval": True, "eval_strategy": "no"}),
    (16, {"early_stopping_patience": 2}),
    (16, {"early_stopping_patience": 2, "val_set_size": 0.1, "eval_strategy": "steps",
          "save_strategy": "steps", "eval_steps": 20, "save_steps": 30}),
    (17, {"batch_size": 8}),
    (18, {"sample_packing": True, "rl": "dpo"}),
    (18, {"rl": "kto", "eval_sample_packing": True, "remove_unused_columns": False,
          "datasets": DPO_ROWS}),
    (18, {"sample_packing": True, "eval_table_size": 5, "eval_sample_packing": None}),
    (18, {"do_causal_lm_eval": True, "eval_sample_packing": True}),
    (18, {"eval_causal_lm_metrics": ["bleu"]}),
    (19, {"rl": "kto"}),
    (20, {"adapter": "qlora"}),
    (20, {"adapter": None, "load_in_4bit": True}),
    (20, {"adapter": "ia3"}),
    (21, {"load_in_8bit": True, "lora_mlp_kernel": True}),
    (22, {"lora_target_modules": ["(a"]}),
    (22, {"peft_layers_pattern": ["a"]}),
    (22, {"peft_layers_to_transform": [1], "unfrozen_parameters": ["a"]}),
    (22, {"flash_attn_fuse_mlp": True}),
    (23, {"lr_groups": [{"name": "a", "modules": ["b"], "lr": 0.1}], "loraplus_lr_ratio": 2.0}),
    (24, {"flash_attention": True}),
    (24, {"attn_implementation": "flash"}),
    (24, {"attn_implementation": "flash_attention"}),
    (25, {"scaling_softmax": True}),
    (26, {"context_parallel_size": 2}),
    (27, {"tensor_parallel_size": 2, "optimizer": "adamw_bnb_8bit"}),
    (28, {"plugins": ["axolotl.integrations.liger.LigerPlugin"],
          "liger_cross_entropy": True, "liger_fused_linear_cross_entropy": True}),
    (29, {"plugins": [LIGER], "liger_glu_activation": True, "tiled_mlp": True}),
    (30, {"activation_offloading": True, "gradient_checkpointing": False}),
    (30, {"selective_checkpointing": True, "gradient_checkpointing": False}),
    (31, {"deepspeed": "x.json", "fsdp": ["full_shard"]}),
    (32, {"optimizer": "muon", "deepspeed": "x.json"}),
    (32, {"optimizer": "polora", "lora_modules_to_save": ["lm_head"]}),
    (32, {"optimizer": "flash_adamw", "fsdp": ["full_shard"], "fsdp_config": SHARDED}),
    (33, {"optimizer": "adamw_bnb_8bit", "fsdp_version": 2,
          "fsdp_config": {"reshard_after_forward": True}}),
    (34, {"adapter": "qlora", "load_in_4bit": True, "fsdp_version": 2,
          "fsdp_config": {"cpu_ram_efficient_loading": True}}),
    (35, {"fp8_config": {"recipe": "rowwise"}}),
    (35, {"fp32_norms": True}),
    (36, {"fsdp_version": 2, "fsdp_config": {"auto_wrap_policy": "SIZE_BASED_WRAP"}}),
    (36, {"fsdp_version": 2, "fsdp_config": {"cpu_offload_pin_memory": False}}),
    (37, {"deepcompile": True}),
    (38, {"relora": True}),
    (38, {"relora": True, "jagged_restart_steps": 5, "lr_scheduler": "one_cycle"}),
    (39, {"quantize_moe_experts": True}),
    (39, {"ple_cpu_offload": True}),
    (40, {"gptq": True, "revision_of_model": "main"}),
    (41, {"tokenizer_use_mistral_common": True, "chat_template": "chatml"}),
    (42, {"chat_template": "jinja"}),
    (42, {"datasets": [{"path": "x", "type": "chat_template", "chat_template": "jinja"}]}),
    (43, {"datasets": [{"path": "x", "type": "sharegpt"}]}),
    (44, {"push_dataset_to_hub": "a/b"}),
    (45, {"gpu_memory_limit": 20, "max_memory": {"cpu": "1GB"}}),
    (44, {"dataset_exact_deduplication": True, "skip_prepare_dataset": True}),
    (45, {"neftune_noise_alpha": 0}),
    (45, {"unfrozen_parameters": ["a"], "gradient_checkpointing": True,
          "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    (45, {"base_model": "tiiuae/falcon-7b", "fsdp": ["full_shard"]}),
    (45, {"base_model": "someone/prompt-model", "gradient_checkpointing": True}),
    (46, {"rl": "grpo", "trl": {"num_generations": 3}}),
    (46, {"rl": "grpo", "trl": {"num_generations": 4, "generation_batch_size": 6}}),
    (46, {"rl": "gdpo", "trl": {"multi_objective_aggregation": "sum_then_normalize"}}),
    (47, {"dpo_loss_type": ["ipo"]}),
    (47, {"rl": "dpo", "dpo_loss_type": ["ipo"], "dpo_use_liger_kernel": True,
          "datasets": DPO_ROWS}),
    (47, {"rl": "dpo", "dpo_loss_type": ["ipo"], "dpo_loss_weights": [0.5, 0.5],
          "datasets": DPO_ROWS}),
    (48, {"rl": "ppo"}),
    (48, {"rl": "ebft"}),
    (49, {"save_safetensors": False}),
    (49, {"s2_attention": True}),
    (50, {"torch_compile_options": {"epilogue_fusion": True}}),
    (50, {"torch_compile": True, "torch_compile_options": {"max_autotune": True}}),
    (51, {"plugins": ["axolotl.integrations.swanlab.SwanLabPlugin"]}),
    (54, {"batch_flattening": True}),
    (56, {"plugins": ["LigerPlugin"]}),
    (62, {"load_in_4bit": True}),
    (63, {"lora_r": None}),
    (68, {"rl": "dpo", "datasets": [{**DPO_ROWS[0], "roles": {"user": ["a"]}}]}),
    (69, {"chat_template": "mistral_v3_tekken", "default_system_message": "x"}),
    (75, {"val_set_size": 0.1}),
    (83, {"rl": "simpo"}),
    (84, {"rl": "dpo", "neftune_noise_alpha": 5.0}),
    (87, {"tokens": ["<x>"]}),
    (91, {"sample_packing": True, "attn_implementation": None}),
]  # fmt: skip

LLAMAFACTORY: list[Case] = [
    (10, {"finetuning_type": "full", "adapter_name_or_path": "x"}),
    (11, {"quantization_bit": 4, "finetuning_type": "full"}),
    (11, {"quantization_bit": 4, "pissa_init": True}),
    (11, {"quantization_bit": 4, "adapter_name_or_path": "a,b"}),
    (11, {"quantization_bit": 4, "adapter_name_or_path": "a", "create_new_adapter": True}),
    (11, {"quantization_bit": 4, "quantization_device_map": "auto"}),
    (11, {"stage": "dpo", "ref_model_quantization_bit": 3}),
    (12, {"use_galore": True}),
    (12, {"finetuning_type": "full", "use_dora": True}),
    (13, {"pissa_init": True, "stage": "kto"}),
    (13, {"pissa_init": True, "stage": "dpo"}),
    (14, {"fp16": True}),
    (15, {"image_max_pixels": 100, "image_min_pixels": 1000}),
    (17, {"resize_vocab": True}),
    (18, {"finetuning_type": "full", "use_galore": True, "galore_layerwise": True,
          "gradient_accumulation_steps": 4}),
    (20, {"eval_strategy": "epoch"}),
    (20, {"val_size": 0.1, "eval_dataset": "a"}),
    (20, {"do_eval": True}),
    (20, {"dataset": None}),
    (20, {"lr_scheduler_type": "reduce_lr_on_plateau"}),
    (21, {"streaming": True}),
    (22, {"interleave_probs": "0.5,0.5"}),
    (22, {"mask_history": True, "train_on_prompt": True}),
    (23, {"stage": "pt", "neat_packing": True}),
    (23, {"do_predict": True, "val_size": 0.1}),
    (30, {"stage": "ppo"}),
    (30, {"stage": "ppo", "reward_model": "x", "finetuning_type": "full"}),
    (30, {"stage": "ppo", "reward_model": "x", "report_to": "mlflow"}),
    (31, {"stage": "rm", "load_best_model_at_end": True}),
    (31, {"stage": "dpo", "dpo_label_smoothing": 0.1, "pref_loss": "ipo"}),
    (32, {"finetuning_type": "full", "use_galore": True, "deepspeed": "x.json"}),
    (33, {"load_best_model_at_end": True, "val_size": 0.1, "eval_strategy": "steps",
          "eval_steps": 20, "save_strategy": "steps", "save_steps": 30}),
    (33, {"fp8": True, "quantization_bit": 4}),
    (35, {"warmup_ratio": 0.1, "warmup_steps": 5}),
    (36, {"report_to": "trackio", "project": ""}),
    (37, {"flash_attn": "fa3"}),
    (38, {"logging_steps": 0}),
    (38, {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 1.5}),
    (75, {"val_size": 0.1}),
    (77, {"do_train": False}),
    (78, {"overwrite_cache": True}),
    (87, {"add_tokens": "<x>"}),
    (91, {"packing": True}),
]  # fmt: skip

SHIPPED = sorted(shipped("recipes").glob("*.yaml"))


def codes(backend: str, native: Mapping[str, Any]) -> set[str]:
    recipe = loaded(backend=backend, **{f"native.{backend}": dict(native)})
    return {finding.code for finding in check(recipe)}


@pytest.mark.parametrize(("number", "native"), AXOLOTL)
def test_axolotl_rule_fires(number: int, native: Mapping[str, Any]) -> None:
    assert f"FT{600 + number}" in codes("axolotl", native)


@pytest.mark.parametrize(("number", "native"), LLAMAFACTORY)
def test_llamafactory_rule_fires(number: int, native: Mapping[str, Any]) -> None:
    assert f"FT{700 + number}" in codes("llamafactory", native)


@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
def test_sound_recipe_breaks_no_rule(backend: str) -> None:
    assert codes(backend, {}) == set()


@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.stem))
def test_shipped_recipes_break_no_rule(file: Any, backend: str) -> None:
    findings = check(load(file, backend=backend))
    assert not has_errors(findings)
    assert {f.code for f in findings} <= {"FT209"}


def test_every_rule_has_a_case() -> None:
    for cases, rules in ((AXOLOTL, axolotl_rules.RULES), (LLAMAFACTORY, llamafactory_rules.RULES)):
        missing = {rule.number for rule in rules} - {number for number, _ in cases}
        assert missing <= {12, 34, 55}, missing


def test_finding_stands_at_the_native_key() -> None:
    found = check(loaded(**{"native.axolotl": {"streaming": True}}))
    assert (found[0].code, found[0].field) == ("FT611", "native.axolotl.streaming")
    recipe = loaded(
        **{"training.evaluate": "epoch", "data.validation": 9, "training.early_stopping": 2}
    )
    (found_here,) = check(recipe)
    assert (found_here.code, found_here.field) == ("FT616", "training.early_stopping")


def test_values_of_odd_types_never_raise() -> None:
    odd: list[Any] = ["x", 1, 1.5, True, [], [1], {"a": 1}]
    for rules in (axolotl_rules.RULES, llamafactory_rules.RULES):
        for value in odd:
            config = {key: value for rule in rules for key in rule.keys}
            list(broken(rules, config, series=600, given={}))


@pytest.mark.parametrize(
    "native",
    [{"lora_rank": "8"}, {"learning_rate": "1e-4"}, {"stage": "orpo"}, {"plot_loss": 1},
     {"flash_attn": "flash_attention_2"}, {"quantization_method": "nope"}],
)  # fmt: skip
def test_types_and_choices_of_llamafactory_keys(native: dict[str, Any]) -> None:
    assert "FT235" in codes("llamafactory", native)
    assert "FT235" not in codes("llamafactory", {"lora_rank": 8, "report_to": "none"})
