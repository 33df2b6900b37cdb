"""What a model folder is, seen as its user would: through AutoConfig and AutoTokenizer."""

import hashlib
from pathlib import Path
from typing import Any

from .backend_errors import backend_errors
from .errors import ProbeError
from .request import Request, Result, existing_path

QUESTION = [{"role": "user", "content": "What is 2 plus 3?"}]
NEW_TOKENS = 8


def describe_model(request: Request) -> Result:
    """Load configuration and tokenizer from ``directory``; with ``forward`` run the model, too."""
    directory = existing_path(request, "directory")
    hint = "The folder is not a complete model; export it again."
    with backend_errors(f"Loading {directory}", hint):
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        config = AutoConfig.from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        generation: dict[str, Any] = {}
        if (directory / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(directory).to_dict()
    template = tokenizer.chat_template
    vocabulary = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise ProbeError(
            f"The tokenizer in {directory} has {len(tokenizer)} tokens, the model {vocabulary}.",
            hint="Tokens were added without resizing the model; save both from one run.",
        )
    described: Result = {
        "model_type": config.model_type,
        "architectures": config.architectures,
        "dtype": str(config.dtype).removeprefix("torch.") if config.dtype else None,
        "vocabulary": vocabulary,
        "tokenizer_class": type(tokenizer).__name__,
        "tokenizer_size": len(tokenizer),
        "bos_id": tokenizer.bos_token_id,
        "eos_id": tokenizer.eos_token_id,
        "eos_token": tokenizer.eos_token,
        "pad_id": tokenizer.pad_token_id,
        "generation_eos_ids": as_list(generation.get("eos_token_id")),
        "chat_template_sha256": (
            hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None
        ),
        "sample": tokenizer("The sum of 2 and 3 is 5.")["input_ids"],
    }
    if request.get("forward"):
        with backend_errors(f"Running the model in {directory}", hint):
            described["forward"] = forward(directory, tokenizer)
    return described


def as_list(value: Any) -> list[int]:
    """Generation settings hold one id or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [int(value)]


def forward(directory: Path, tokenizer: Any) -> Result:
    """One forward pass and a short greedy answer."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").to(device).eval()
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    else:
        encoded = tokenizer(QUESTION[0]["content"], return_tensors="pt")
    ids = encoded["input_ids"].to(device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        answer = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
    return {
        "finite": bool(torch.isfinite(logits).all()),
        "prompt": tokenizer.decode(ids[0]),
        "text": tokenizer.decode(answer[0, ids.shape[1] :]),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
