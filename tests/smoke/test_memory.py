"""The memory plan against transformers, peft, torch and DeepSpeed themselves: one process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.environments.environment import find, process_environment
from orchestrator.memory import known
from orchestrator.memory.estimate import estimate
from orchestrator.memory.layout import Layout
from orchestrator.memory.model import read
from orchestrator.memory.settings import Settings
from tests.test_memory import OTHERS, settings_of

pytestmark = pytest.mark.backend

SCRIPT = Path(__file__).with_name("memory_reference.py")
TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
          "v_head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
          "moe_intermediate_size": 24, "first_k_dense_replace": 1, "topk_group": 1,
          "num_experts_per_tok": 2, "num_key_value_heads": 4}  # fmt: skip
FALCON = {"model_type": "falcon", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100,
          "num_attention_heads": 4}  # fmt: skip
OPT = {"model_type": "opt", "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3,
       "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 128}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    **{
        name: {**TINY, "model_type": name}
        for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi",
                     "phi3")
    },
    "llama, biases": {**TINY, "model_type": "llama", "attention_bias": True, "mlp_bias": True,
                      "tie_word_embeddings": True, "head_dim": 32},
    "phi, qk norm": {**TINY, "model_type": "phi", "qk_layernorm": True, "num_key_value_heads": 4},
    "mixtral": {**TINY, "model_type": "mixtral", "num_local_experts": 4},
    "qwen2_moe": {**TINY, "model_type": "qwen2_moe", "num_experts": 6, "moe_intermediate_size": 24,
                  "shared_expert_intermediate_size": 48, "mlp_only_layers": [1]},
    "qwen3_moe": {**TINY, "model_type": "qwen3_moe", "num_experts": 6, "head_dim": 32,
                  "moe_intermediate_size": 24, "decoder_sparse_step": 2},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128,
             "vocab_size": 100},
    "gpt_neox": {"model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 96,
                 "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100},
    "falcon": FALCON,
    "falcon, groups": {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon, all heads": {**FALCON, "multi_query": False, "alibi": True, "bias": True,
                          "parallel_attn": False},
    "opt": {**OPT, "word_embed_proj_dim": 64},
    "opt, narrow": {**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    "deepseek_v2": {**TINY, **LATENT, "model_type": "deepseek_v2"},
    "deepseek_v2, no q rank": {**TINY, **LATENT, "model_type": "deepseek_v2", "q_lora_rank": None},
    "deepseek_v3": {**TINY, **LATENT, "model_type": "deepseek_v3"},
}  # fmt: skip
"""A small model of every family and of the branches within it."""

SMALL = {**TINY, "model_type": "llama", "hidden_size": 256, "intermediate_size": 768,
         "vocab_size": 2000, "tie_word_embeddings": False}  # fmt: skip
SETTINGS: list[dict[str, Any]] = [
    {"hold": "axolotl", "batch": 4, "sequence": 512, "checkpointing": False},
    {"hold": "float32", "batch": 4, "sequence": 512, "checkpointing": True},
    {"hold": "bf16", "lora": 8, "batch": 4, "sequence": 512, "checkpointing": False},
    {"hold": "bf16", "lora": 8, "batch": 4, "sequence": 512, "checkpointing": True,
     "accumulation": 2},
]  # fmt: skip


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    """What the backend environment says of all of it."""
    environment = find("axolotl")
    request = {
        "counts": {**FAMILIES, **{n: row["config"] for n, row in (known.table() | OTHERS).items()}},
        "peaks": [{**row, "config": SMALL} for row in SETTINGS],
        "deepspeed": {"parameters": 8_030_261_248, "gpus": [2, 4, 8]},
    }
    done = subprocess.run(
        [environment.python, SCRIPT],
        env=process_environment(environment, offline=True),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_parameters_are_those_of_the_real_classes(answer: dict[str, Any]) -> None:
    configs = {**FAMILIES, **{name: row["config"] for name, row in known.table().items()}}
    ours = {name: read(config).parameters for name, config in configs.items()}
    others = {name: row["parameters"] for name, row in OTHERS.items()}
    assert ours | others == answer["counts"]


def test_peaks_are_those_of_the_real_code(answer: dict[str, Any]) -> None:
    for row, measured in zip(SETTINGS, answer["peaks"], strict=True):
        found = estimate(read(SMALL), settings_of(row), Layout())
        assert found.allocated == pytest.approx(measured["peak"], rel=0.1), row


def test_model_states_are_those_of_deepspeeds_estimator(answer: dict[str, Any]) -> None:
    model = read(known.table()["llama-3-8b"]["config"])
    for gpus, expected in answer["deepspeed"].items():
        found = estimate(model, Settings(), Layout("zero", int(gpus), 2))
        states = sum(
            term.bytes
            for term in found.terms
            if term.group in ("weights", "gradients", "optimizer")
            and term.name != "temporary of the step"
        )
        assert states == pytest.approx(expected, rel=1e-6)
