"""A twin: a tiny random model that has a family's architecture, special tokens and template.

A run against the twin goes through the same code paths as the real run (chat template, masking,
LoRA target names, quantization, merging) in seconds and without a download. It must be the same
byte for byte each time, so that loss curves and golden results can be compared between machines:
weights come from NumPy's generator, seeded per tensor, never from the order in which a library
happens to initialise modules.

Families whose tensor names are known here need neither torch nor transformers, which is what makes
the task take a second and not half a minute. Any other architecture is built by transformers.
"""

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from .errors import ProbeError
from .families import FAMILIES, Family
from .request import Request, Result, existing_path, optional_text, text
from .twin_tokenizer import MAX_LENGTH, write_tokenizer

# Every linear layer's sides are multiples of 64, the block size of bitsandbytes' nf4.
SHAPE: dict[str, int] = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": MAX_LENGTH,
}
# Sizes that other architectures add, set only where the real configuration has them.
EXTRA_SHAPE: dict[str, Any] = {
    "n_layer": 2,
    "n_embd": 128,
    "n_head": 4,
    "n_inner": 256,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "query_pre_attn_scalar": 32,
    "original_max_position_embeddings": MAX_LENGTH,
}
# Settings that describe the full-size weights or per-layer lists of the full-size depth.
DROPPED = (
    "quantization_config",
    "auto_map",
    "rope_scaling",
    "layer_types",
    "transformers_version",
    "_name_or_path",
    "max_window_layers",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
)
KNOWN = frozenset(family.model_type for family in FAMILIES.values())

Fill = Literal["matrix", "one", "zero"]


def shrink(real: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """A real configuration at the twin's size."""
    if "text_config" in real:
        real = {**real["text_config"], "architectures": real.get("architectures", [])}
    config = {key: value for key, value in real.items() if key not in DROPPED}
    config.update(SHAPE)
    config.update({key: value for key, value in EXTRA_SHAPE.items() if real.get(key) is not None})
    if isinstance(real.get("rope_parameters"), dict):
        theta = real["rope_parameters"].get("rope_theta", 10000.0)
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    config["vocab_size"] = vocabulary
    config.pop("dtype", None)
    config["torch_dtype"] = "float32"
    return config


def token_settings(family: Family, ids: dict[str, int]) -> dict[str, Any]:
    """The ids that a configuration repeats from the tokenizer."""
    settings: dict[str, Any] = {"eos_token_id": ids[family.eos]}
    if family.bos is not None:
        settings["bos_token_id"] = ids[family.bos]
    elif family.pad is not None:
        settings["bos_token_id"] = ids[family.pad]  # Qwen names <|endoftext|> here
    if family.pad is not None:
        settings["pad_token_id"] = ids[family.pad]
    return settings


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], Fill]]:
    """Names and shapes of a known architecture's weights, as transformers names them."""
    kind = config["model_type"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    norm: Fill = "zero" if kind.startswith("gemma") else "one"  # Gemma scales by 1 + weight
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden), "matrix"
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        if kind == "phi3":
            yield f"{prefix}self_attn.qkv_proj.weight", (queries + 2 * keys, hidden), "matrix"
            yield f"{prefix}mlp.gate_up_proj.weight", (2 * inner, hidden), "matrix"
        else:
            for name, width in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{prefix}self_attn.{name}_proj.weight", (width, hidden), "matrix"
                if kind == "qwen2":
                    yield f"{prefix}self_attn.{name}_proj.bias", (width,), "zero"
            yield f"{prefix}mlp.gate_proj.weight", (inner, hidden), "matrix"
            yield f"{prefix}mlp.up_proj.weight", (inner, hidden), "matrix"
        yield f"{prefix}self_attn.o_proj.weight", (hidden, queries), "matrix"
        yield f"{prefix}mlp.down_proj.weight", (hidden, inner), "matrix"
        norms = ["input_layernorm", "post_attention_layernorm"]
        if kind == "gemma2":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            yield f"{prefix}{name}.weight", (hidden,), norm
        if kind == "qwen3":
            yield f"{prefix}self_attn.q_norm.weight", (config["head_dim"],), "one"
            yield f"{prefix}self_attn.k_norm.weight", (config["head_dim"],), "one"
    yield "model.norm.weight", (hidden,), norm
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (config["vocab_size"], hidden), "matrix"


def random_matrix(name: str, shape: tuple[int, ...], seed: int) -> Any:
    """Normal values from a generator that depends on the seed and the tensor's own name.

    The spread keeps activations near one through the layers, so that a few training steps and a
    small adapter change the loss visibly; 0.02, usual for wide models, leaves a narrow one flat.
    """
    import numpy

    generator = numpy.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, dtype=numpy.float32)
    return values * numpy.float32(shape[-1] ** -0.5)


def write_known(config: dict[str, Any], seed: int, directory: Path) -> int:
    """Write the weights of a known architecture; return the number of parameters."""
    import numpy
    from safetensors.numpy import save_file

    weights = {}
    for name, shape, fill in tensors(config):
        if fill == "matrix":
            weights[name] = random_matrix(name, shape, seed)
        else:
            weights[name] = numpy.full(shape, 1.0 if fill == "one" else 0.0, dtype=numpy.float32)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return sum(value.size for value in weights.values())


def write_other(config: dict[str, Any], seed: int, directory: Path) -> int:
    """Let transformers build an architecture unknown here, then replace its random matrices."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.for_model(**config)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProbeError(
            f"No twin of a {config.get('model_type')!r} model could be built: {error}",
            hint="Name a family that is close to it, or smoke-test with the real model.",
        ) from error
    with torch.no_grad():
        for name, weight in sorted(model.state_dict().items()):
            if weight.dim() >= 2 and weight.is_floating_point():
                weight.copy_(torch.from_numpy(random_matrix(name, tuple(weight.shape), seed)))
    model.save_pretrained(directory)
    return sum(weight.numel() for weight in model.parameters())


def copy_tokenizer(source: Path, directory: Path) -> dict[str, int]:
    """Reuse real tokenizer files; return the id of every token."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ProbeError(
            f"{source} has no tokenizer.json.",
            hint="Load the tokenizer once with transformers and save it: that writes the file.",
        )
    from tokenizers import Tokenizer

    ids: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab()
    return ids


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Sorted and indented: the file is part of what must not change between runs."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def twin(request: Request) -> Result:
    """Make a twin in ``directory``; see the module's docstring."""
    name = text(request, "family")
    if name not in FAMILIES:
        raise ProbeError(
            f"There is no twin family {name!r}.", hint=f"Known: {', '.join(sorted(FAMILIES))}."
        )
    family = FAMILIES[name]
    seed = int(request.get("seed", 0))
    corpus = [Path(path) for path in request.get("corpus") or []]
    missing = [str(path) for path in corpus if not path.is_file()]
    if missing:
        raise ProbeError(f"Corpus files not found: {', '.join(missing)}.", hint="Check the paths.")
    directory = Path(text(request, "directory"))
    directory.mkdir(parents=True, exist_ok=True)

    if optional_text(request, "tokenizer_directory"):
        ids = copy_tokenizer(existing_path(request, "tokenizer_directory"), directory)
    else:
        ids = write_tokenizer(family, corpus, directory)
    vocabulary = max(ids.values()) + 1

    generation: dict[str, Any] = {}
    if optional_text(request, "config_file"):
        source = existing_path(request, "config_file")
        config = shrink(json.loads(source.read_text(encoding="utf-8")), vocabulary)
    else:
        config = shrink(
            {
                "architectures": [family.architecture],
                "model_type": family.model_type,
                "tie_word_embeddings": False,
                "attention_dropout": 0.0,
                "initializer_range": 0.02,
                "use_cache": True,
                **({"hidden_act": "silu"} if family.model_type != "gemma2" else {}),
                **family.config,
            },
            vocabulary,
        )
    if not optional_text(request, "tokenizer_directory"):
        generation = token_settings(family, ids)
        config.update(generation)
        generation["eos_token_id"] = [ids[token] for token in family.stops]
    else:
        generation = {
            key: config[key]
            for key in ("bos_token_id", "eos_token_id", "pad_token_id")
            if config.get(key) is not None
        }
    write = write_known if config["model_type"] in KNOWN else write_other
    parameters = write(config, seed, directory)
    if write is write_known:
        write_json(directory / "config.json", config)
    write_json(directory / "generation_config.json", generation)
    return {
        "directory": str(directory),
        "family": name,
        "model_type": config["model_type"],
        "vocabulary": vocabulary,
        "parameters": parameters,
        "eos_ids": generation.get("eos_token_id"),
    }
