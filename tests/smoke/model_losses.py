"""The loss of saved models on some rows, one line each; runs in a backend environment.

After it the keys that DeepSpeed knows, since a process of its own costs its start.
"""

import json
import sys
from pathlib import Path

import deepspeed_keys  # type: ignore[import-not-found]


def main(data: str, *folders: str) -> None:
    """Load each model by itself, in this one process, and print its mean loss on the rows."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = Path(data).read_text("utf-8").splitlines()[:16]
    rows = [json.loads(line)["output"] for line in lines]
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        losses = []
        for row in rows:
            ids = tokenizer(row, return_tensors="pt").input_ids
            with torch.no_grad():
                losses.append(model(input_ids=ids, labels=ids).loss.item())
        sys.stdout.write(f"LOSS {sum(losses) / len(losses)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    deepspeed_keys.main()
