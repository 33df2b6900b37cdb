"""Preference pairs tokenized as they were judged: one BOS, the answer by itself.

axolotl 0.19.0 takes a second BOS away in a method of its DPO trainer, which TRL 1.9.0 does not call
any more: texts that start with BOS get another one. And TRL tokenizes prompt and answer in one
piece, where the answer's first token becomes another one (`[/INST]fine`: no space before it).
"""

from typing import Any


class PairTokens:
    """Takes the place of TRL's `_tokenize`, which is called with a prompt, then twice with that
    prompt and an answer behind it."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.prompt = ""
        self.answers = 0

    def __call__(self, processing_class: Any, input: Any, **options: Any) -> dict[str, Any]:
        """Ids of a text; conversations and processors are left to TRL."""
        if not isinstance(input, str) or hasattr(processing_class, "tokenizer"):
            result: dict[str, Any] = self.original(processing_class, input, **options)
            return result
        if self.answers and input.startswith(self.prompt):
            self.answers -= 1
            parts = [self.prompt, input[len(self.prompt) :]]
        else:
            self.prompt, self.answers, parts = input, 2, [input]
        ids = [
            token
            for part in parts
            for token in processing_class(part, add_special_tokens=False)["input_ids"]
        ]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def tokenize_pairs_as_judged() -> None:
    """Let TRL's DPO trainer use :class:`PairTokens`."""
    from trl.trainer import dpo_trainer

    if not isinstance(dpo_trainer._tokenize, PairTokens):
        dpo_trainer._tokenize = PairTokens(dpo_trainer._tokenize)
