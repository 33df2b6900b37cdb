"""Does a merged model compute what base + adapter compute?

A merge can go wrong without an error: a quantized base, the wrong base, a half-applied adapter. So
the merged folder is loaded again, as any user would, and its logits are compared with those of the
unquantized base carrying the adapter.
"""

import gc
import json
from pathlib import Path
from typing import Any

from .errors import ProbeError
from .request import Request, Result, existing_path, text

PROMPT = "The sum of 12 and 30 is 42. The usual colour of fresh grass is green."

# Allowed difference, as a share of the largest logit. Merging rounds W + BA once to the stored
# type, where base + adapter rounds W and BA apart; the error then grows through the layers. float32
# has 2**-24 per rounding and was measured at 3e-7 in all, so 1e-4 leaves room for deep models and
# still catches any real mistake. bfloat16 keeps 8 bits (2**-9 = 0.2 % per rounding) and float16
# 11 bits; their errors add up over some dozens of layers.
SHARE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}

KEPT = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "vocab.*",
    "merges.txt",
    "*.py",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


def only_model_files(output: Path) -> None:
    """Drop what is not part of a model folder, such as llamafactory's ollama ``Modelfile``."""
    for path in output.iterdir():
        if path.is_file() and not any(path.match(pattern) for pattern in KEPT):
            path.unlink()
    if not list(output.glob("*.safetensors")):
        raise ProbeError(
            f"The merge left no safetensors file in {output}.",
            hint="Look at the stage's log; the merge itself reported no error.",
        )


def stored_type(folder: Path) -> str:
    """The type of the merged weights, as the folder's configuration says."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return str(name).removeprefix("torch.")


def logits(model: Any, ids: Any) -> Any:
    """The logits for the prompt, in float32 on the CPU."""
    import torch

    model.eval()
    with torch.inference_mode():
        return model(input_ids=ids.to(model.device)).logits.float().cpu()


def compare(base: str, adapter: Path, merged: Path, prompt: str, source: dict[str, Any]) -> Result:
    """Load base + adapter, then the merged model, and compare.

    ``source`` says which base: its revision, and whether its own code may run.

    On a CPU everything is computed in float32, whatever the files hold: the weights are the stored
    ones, and the arithmetic adds no noise of its own. On a GPU the merged type is used, since
    float32 might not fit.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    cuda = torch.cuda.is_available()
    stored = stored_type(merged)
    trusted = {"trust_remote_code": source["trust_remote_code"]}
    options: dict[str, Any] = {
        **trusted,
        "dtype": getattr(torch, stored) if cuda else torch.float32,
        "device_map": {"": 0} if cuda else {"": "cpu"},
    }
    ids = AutoTokenizer.from_pretrained(merged, **trusted)(prompt, return_tensors="pt")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(base, revision=source["revision"], **options)
    vocabulary = AutoConfig.from_pretrained(merged, **trusted).get_text_config().vocab_size
    if plain.get_input_embeddings().weight.shape[0] != vocabulary:
        plain.resize_token_embeddings(vocabulary)
    adapted = PeftModel.from_pretrained(plain, str(adapter))
    expected = logits(adapted, ids)
    with adapted.disable_adapter():
        without = logits(adapted, ids)
    del adapted, plain
    gc.collect()
    actual = logits(AutoModelForCausalLM.from_pretrained(merged, **options), ids)

    difference = float((actual - expected).abs().max())
    tolerance = SHARE.get(stored, SHARE["bfloat16"]) * max(1.0, float(expected.abs().max()))
    agreement = (actual.argmax(-1) == expected.argmax(-1)).float().mean()
    return {
        "max_abs_diff": difference,
        "top1_agreement": float(agreement),
        "adapter_effect": float((without - expected).abs().max()),
        "dtype": stored,
        "tolerance": tolerance,
        "passed": bool(torch.isfinite(actual).all()) and difference <= tolerance,
    }


def verify(request: Request) -> Result:
    """Compare ``output`` with ``base`` + ``adapter`` on ``prompt``."""
    output = Path(text(request, "output"))
    adapter = existing_path(request, "adapter")
    prompt = str(request.get("prompt") or PROMPT)
    source = {
        "revision": request.get("revision"),
        "trust_remote_code": bool(request.get("trust_remote_code")),
    }
    base = text(request, "base")
    return {"output": str(output), **compare(base, adapter, output, prompt, source)}
