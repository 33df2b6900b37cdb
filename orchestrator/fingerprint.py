"""Names of prepared data that change whenever the tokens could.

axolotl's own hash does not look into files and LLaMA-Factory's `tokenized_path` looks at nothing
(axolotl 0.19.0, llamafactory 0.9.5, measured), so both reuse stale tokens when a file is edited.
Here the folder is named by the content of everything that decides what is tokenized.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.backends.registry import BACKENDS
from orchestrator.recipe.models import Recipe

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
    "config.json",
)  # fmt: skip


TOKENIZER_FIELDS = (
    "tokenizer", "tokenizer_class", "processor_class", "config_from", "fast_tokenizer",
    "legacy_tokenizer", "mistral_tokenizer", "split_special_tokens", "like_llama", "like_mistral",
    "like_qwen", "like_falcon",
)  # fmt: skip
"""Fields of the model that decide about tokens."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of all files of a folder with their names."""
    if path.is_file():
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path)}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_digest(base: Path) -> str:
    """SHA-256 of the tokenizer files of a local model."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            digest.update(f"{name}\0{file_digest(base / name)}\n".encode())
    return digest.hexdigest()


def _common(recipe: Recipe) -> list[Any]:
    """What makes a backend tokenize as the others do: its settings, and the code that does it."""
    settings = BACKENDS[recipe.backend].tokenization(recipe)
    if settings is None:
        return []
    folder = resources.files("orchestrator").joinpath("probe", "ftprobe")
    code = folder.joinpath(f"{recipe.backend}_common.py").read_text("utf-8")
    return [settings, text_digest(code)]


def prepared_name(
    recipe: Recipe, *, release: str, tokenizer: str, contents: Iterable[str], template: str
) -> str:
    """Folder name of the prepared data of `recipe`.

    `release` names the backend's release and lock, `tokenizer` the tokenizer's digest (or the hub
    id), `contents` the digests of the data in order, `template` the template file's digest.
    """
    native = getattr(recipe.native, recipe.backend)
    facts = {
        "backend": [recipe.backend, release],
        "model": [tokenizer, recipe.model.revision, recipe.model.trust_remote_code],
        "tokenizer": [getattr(recipe.model, name) for name in TOKENIZER_FIELDS],
        "tokens": recipe.tokens.model_dump(mode="json"),
        "data": recipe.data.model_dump(mode="json", exclude={"tokenization"}),
        "contents": list(contents),
        "template": template,
        "stage": recipe.training.stage,
        "seed": recipe.training.seed,
        "native": {key: native[key] for key in sorted(native)},
        "common": _common(recipe),
    }
    text = json.dumps(facts, sort_keys=True)
    return f"{recipe.backend}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
