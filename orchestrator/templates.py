"""Chat templates by one name, and what each backend calls them.

The pairs were compared by rendered text (`schema-map`, section 2b of the project's notes): the
same text for system, user and assistant turns unless `differs` says otherwise. `stop` is the token
that ends an assistant turn; it is always rendered, since axolotl trains it only when it is the
tokenizer's own eos or named (axolotl 0.19.0, issue 3754).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """One template. None: the backend has no template with this text.

    `trims` are the roles whose content loses its outer whitespace in the model's own template;
    LLaMA-Factory's keep it (llamafactory 0.9.5).
    """

    axolotl: str | None
    llamafactory: str | None
    stop: str = ""
    families: tuple[str, ...] = ()
    differs: str = ""
    trims: tuple[str, ...] = ()


TOKENIZER = "tokenizer"
ALPACA = "alpaca"
ROLES = ("system", "user", "assistant")

TEMPLATES: dict[str, Template] = {
    "chatml": Template("chatml", "chatml", "<|im_end|>", ("qwen2", "qwen3")),
    "llama3": Template("llama3", "llama3", "<|eot_id|>", ("llama3",), trims=ROLES),
    "llama4": Template("llama4", "llama4", "<|eot|>"),
    "qwen25": Template("qwen_25", "qwen", "<|im_end|>", ("qwen2",)),
    "qwen3": Template("qwen3", "qwen3", "<|im_end|>", ("qwen3",),
                      "llamafactory puts an empty think block into every assistant turn"),
    "gemma": Template("gemma3", "gemma", "<end_of_turn>", ("gemma",), trims=("user", "assistant")),
    "phi3": Template("phi_35", "phi", "<|end|>", ("phi3",)),
    "falcon-h1": Template("falcon_h1", "falcon_h1", "<|im_end|>"),
    "mistral": Template("mistral_v2v3", "mistral", "", ("mistral",),
                        "axolotl drops the system prompt, llamafactory puts it into turn 1",
                        ("assistant",)),
    "mistral-tekken": Template("mistral_v3_tekken", "ministral", "", (),
                               "axolotl drops the system prompt"),
    "cohere": Template("cohere", "cohere", ""),
    "deepseek3": Template("deepseek_v3", "deepseek3", ""),
    "exaone": Template("exaone", "exaone", "[|endofturn|]"),
}  # fmt: skip
"""Neutral name -> what the backends call it."""
