"""Which files of a repository are needed. Pure.

A model's repository often holds its weights several times (safetensors, pickles, `original/`,
`consolidated.safetensors`, ONNX, GGUF); one of these formats is needed, and the largest part of a
download is saved.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

BESIDE_WEIGHTS = (
    "*.json", "*.model", "*.txt", "*.jinja", "*.py", "tokenizer*", "*.tiktoken", "LICENSE*",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Config, tokenizer, templates and a model's own code."""

WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"adapter_model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"[^/]+\.safetensors"),
    re.compile(r"(pytorch|adapter)_model(-\d+-of-\d+)?\.bin"),
)
"""The formats of weights, in the order in which transformers looks for them."""

WEIGHTS_WORDS = "weights that transformers reads (safetensors or pytorch_model.bin)"

INDEX = re.compile(r"[^/]+\.(?P<format>safetensors|bin|h5|msgpack)\.index\.json")


def of_model(paths: Iterable[str]) -> list[str]:
    """The files of a model that training needs: one format of weights and what is beside them."""
    known = sorted(paths)
    weights = weights_of(known)
    suffix = PurePosixPath(weights[0]).suffix[1:] if weights else ""
    return [
        path
        for path in known
        if path in weights or (_is_beside(path) and _index_of(path) in ("", suffix))
    ]


def weights_of(paths: Iterable[str]) -> list[str]:
    """The weights of a model, in the format that transformers would load; empty if it has none."""
    known = sorted(paths)
    for form in WEIGHTS:
        weights = [path for path in known if form.fullmatch(path)]
        if weights:
            return weights
    return []


def _is_beside(path: str) -> bool:
    """`*` must not reach into folders: `original/params.json` belongs to another format."""
    return any(
        path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
        for pattern in BESIDE_WEIGHTS
    )


def is_index_of(path: str, weights: Sequence[str]) -> bool:
    """Whether a file says which of these weights a tensor is in."""
    return bool(weights) and _index_of(path) == PurePosixPath(weights[0]).suffix[1:]


def _index_of(path: str) -> str:
    found = INDEX.fullmatch(path)
    return found["format"] if found else ""


def of_dataset(paths: Iterable[str]) -> list[str]:
    """All files of a data set: only `datasets` knows which belong to which configuration."""
    return [path for path in sorted(paths) if path != ".gitattributes"]


def matching(paths: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """The files that are wanted by name or pattern, and the description that may be about them."""
    known = sorted(paths)
    found = [path for path in known if any(fnmatchcase(path, pattern) for pattern in wanted)]
    return sorted({*found, "README.md"} & {*known}) if found else []
