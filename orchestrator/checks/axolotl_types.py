"""Types of axolotl 0.19.0's keys: what pydantic refuses, and what it converts without a word.

The types are those in `keys.json`. A type that is not understood takes anything.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.backends.keys import load_keys

INT = re.compile(r"\s*[-+]?\d[\d_]*(\.0+)?\s*")
FLOAT = re.compile(
    r"\s*[-+]?((\d[\d_]*(\.\d*)?|\.\d+)(e[-+]?\d+)?|inf(inity)?|nan)\s*", re.IGNORECASE
)
TRUTHS = {"true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n"}
OPEN = {"optimizer", "max_memory"}
"""Keys that take more words than the listed ones."""

FALLBACK = "tokenizer_default_fallback_"
DATASETS = {"dpo": "DPODataset", "ipo": "DPODataset", "simpo": "DPODataset", "kto": "KTODataset"}
"""axolotl 0.19.0 reads every entry of `datasets` as this, by `rl`; SFTDataset otherwise."""

Spec = Mapping[str, Any]


def misfits(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys, dotted from the top, whose value axolotl refuses, and what it wants there."""
    table = load_keys("axolotl")
    for key, value in config.items():
        spec = table["keys"].get(key)
        if spec is None or value is None:
            continue
        if key == "datasets" and isinstance(value, list):
            model = {**spec, "type": f"list[{dataset_model(config)}]"}
            yield from _misfit(value, model, table["models"], key)
        else:
            yield from _misfit(value, spec, table["models"], key)


def dataset_model(config: Mapping[str, Any]) -> str:
    """The name of the model that reads the entries of `datasets`."""
    return DATASETS.get(str(config.get("rl")), "SFTDataset")


def _misfit(value: Any, spec: Spec, models: Spec, path: str) -> Iterator[tuple[str, str]]:
    kinds = [kind for kind in _split(str(spec.get("type", "any")), "|") if kind != "null"]
    last = path.rpartition(".")[2]
    if not any(_is(value, kind, models) for kind in kinds):
        yield path, f"is {' or '.join(_said(kind) for kind in kinds)}, not {_shown(value)}"
        return
    choices = spec.get("choices")
    if choices and isinstance(value, str) and last not in OPEN and set(kinds) <= {"str", "bool"}:
        words = "bool" in kinds and value.lower() in TRUTHS
        if value not in choices and not words and not value.startswith(FALLBACK):
            yield path, f"is one of {', '.join(map(str, choices))}, not {value!r}"
    for kind in kinds:
        yield from _inside(value, kind, models, path)


def _inside(value: Any, kind: str, models: Spec, path: str) -> Iterator[tuple[str, str]]:
    """What is wrong inside of a section, or of a list of sections."""
    inner = _argument(kind, "list")
    if inner in models and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(item, inner, models, f"{path}[{index}]")
    elif kind in models and isinstance(value, Mapping):
        for key, item in value.items():
            spec = models[kind].get(key)
            if spec is not None and item is not None:
                yield from _misfit(item, spec, models, f"{path}.{key}")


def _is(value: Any, kind: str, models: Spec) -> bool:
    match kind:
        case "bool":
            return value in (0, 1) if not isinstance(value, str) else value.lower() in TRUTHS
        case "int":
            whole = isinstance(value, (int, float)) and float(value).is_integer()
            return whole or (isinstance(value, str) and bool(INT.fullmatch(value)))
        case "float":
            number = isinstance(value, (int, float))
            return number or (isinstance(value, str) and bool(FLOAT.fullmatch(value)))
        case "str":
            return isinstance(value, str)
    if kind in models or kind.startswith("dict"):
        return isinstance(value, Mapping)
    if kind.startswith(("list", "tuple")):
        inner = _argument(kind, "list")
        listed = isinstance(value, list)
        one = _split(inner, "|") if inner else []
        return listed and all(not one or any(_is(v, k, models) for k in one) for v in value)
    return True


def _argument(kind: str, name: str) -> str:
    return kind[len(name) + 1 : -1] if kind.startswith(f"{name}[") else ""


def _split(text: str, separator: str) -> list[str]:
    """Parts at the separators that are in no brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[(") - (char in "])")
        if char == separator and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _said(kind: str) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
    if kind.startswith("list"):
        return "a list"
    return words.get(kind, "a mapping" if kind.startswith("dict") or kind[:1].isupper() else kind)


def _shown(value: Any) -> str:
    if isinstance(value, (Mapping, list)):
        return "a list" if isinstance(value, list) else "a mapping"
    return repr(value)
