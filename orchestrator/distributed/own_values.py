"""Keys and values of a user's own DeepSpeed file that DeepSpeed or the trainer cannot use.

DeepSpeed ignores unknown keys at the top of the file without a word and refuses them, and values of
the wrong type, below it: after the model has been loaded. Others it takes and the trainer does not:
with `"stage": "3"` weights are sharded, but saved as if they were not.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from orchestrator.findings import Level

AUTO = frozenset({
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
    "gradient_clipping", "fp16.enabled", "bf16.enabled",
    "optimizer.params.lr", "optimizer.params.betas", "optimizer.params.eps",
    "optimizer.params.weight_decay",
    "scheduler.params.warmup_min_lr", "scheduler.params.warmup_max_lr",
    "scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps",
    "zero_optimization.reduce_bucket_size", "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_param_persistence_threshold",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save",
})  # fmt: skip
"""Where `auto` may stand: what transformers fills in (`HfTrainerDeepSpeedConfig`), and the last,
which accelerate fills with false and a run of ft with true. Anywhere else it ends the training."""

MAY_BE_NULL = ("aio", "communication_data_type", "seq_parallel_communication_data_type",
               "zero_optimization.overlap_comm", "zero_optimization.offload_param",
               "zero_optimization.zenflow", "zero_optimization.zeropp_loco_param",
               "zero_optimization.offload_optimizer.nvme_path",
               "zero_optimization.offload_param.nvme_path")  # fmt: skip
NEGATIVE = ("zero_optimization.mics_shard_size",)
WORDS = {
    "switch": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "text": "a text",
    "list": "a list",
    "section": "a section in {}",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something in the file that cannot be meant; `key` is its dotted path."""

    key: str
    text: str
    fix: str
    level: Level = "error"


def mistakes(document: Mapping[str, Any]) -> Iterator[Mistake]:
    """All of them."""
    yield from _unknown(document)
    yield from _values(document)
    yield from _autos(document)
    yield from _stage(document)


@cache
def known_keys() -> dict[str, dict[str, Any]]:
    """Section -> key -> what it takes, a word of `WORDS` or the values; "" is the top.

    What DeepSpeed reads; `tests/smoke/test_sharding.py` asks it.
    """
    file = resources.files("orchestrator.distributed").joinpath("deepspeed_keys.json")
    found: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return found


def _sections(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for section in known_keys():
        part: Any = document
        for name in section.split(".") if section else ():
            part = part.get(name) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping):
            yield section, part


def _unknown(document: Mapping[str, Any]) -> Iterator[Mistake]:
    for section, part in _sections(document):
        names = known_keys()[section]
        for key in part:
            if key in names or (not section and key.startswith(("_", "//", "#"))):
                continue  # the top is where one can leave remarks
            close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.75)
            fatal = bool(close or section)
            yield Mistake(
                f"{section}.{key}".lstrip("."),
                "DeepSpeed does not know it" + ("" if fatal else ", and ignores it"),
                f"is it {close[0]}?" if close else "remove it",
                "error" if fatal else "warning",
            )


def _values(document: Mapping[str, Any]) -> Iterator[Mistake]:
    for section, part in _sections(document):
        for name, value in part.items():
            key, takes = f"{section}.{name}".lstrip("."), known_keys()[section].get(name, "any")
            if value == "auto" or _taken(value, takes, key):
                continue
            wanted = ", ".join(map(json.dumps, takes)) if isinstance(takes, list) else WORDS[takes]
            yield Mistake(key, f"it takes {wanted}, not {_shown(value)}", _mended(value, takes))


def _taken(value: Any, takes: Any, key: str) -> bool:
    if value is None:
        return key in MAY_BE_NULL or takes == "any"
    match takes:
        case "switch":
            return isinstance(value, bool)
        case "whole":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and value % 1 == 0 and (value >= 0 or key in NEGATIVE)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "text":
            return isinstance(value, str)
        case "list":
            return isinstance(value, list | str)
        case "section":
            return isinstance(value, Mapping)
        case list():
            return any(value == one and type(value) is type(one) for one in takes)
    return True


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _mended(value: Any, takes: Any) -> str:
    """How the same is written rightly, where that can be told."""
    if value is None:
        return "remove it"
    if isinstance(value, str):
        number = re.fullmatch(r"\s*[0-9.]+(?:[eE]\+?[0-9]+)?\s*", value)
        if number and (isinstance(takes, list) or takes in ("whole", "number")):
            return f"write {value.strip()} without quotes"
        if takes == "switch" and value.lower() in ("true", "false"):
            return f"write {value.lower()} without quotes"
        if isinstance(takes, list) and value.lower() in takes:
            return f'write "{value.lower()}"'
    return "correct it, or remove it"


def _autos(part: Any, path: str = "") -> Iterator[Mistake]:
    for name, value in part.items():
        key = f"{path}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _autos(value, key)
        elif value == "auto" and key not in AUTO:
            yield Mistake(key, '"auto" is filled in by nobody here', "give a value, or remove it")


def _stage(document: Mapping[str, Any]) -> Iterator[Mistake]:
    """What must be there, and what one stage has and another does not."""
    zero = document.get("zero_optimization")
    if "zero_optimization" not in document or (isinstance(zero, Mapping) and "stage" not in zero):
        yield Mistake("zero_optimization.stage", "the trainer needs it", "give 0, 1, 2 or 3")
    if not isinstance(zero, Mapping):
        return
    for name in ("offload_optimizer", "offload_param"):
        part, key = zero.get(name), f"zero_optimization.{name}"
        device = part.get("device") if isinstance(part, Mapping) else None
        if device == "nvme" and isinstance(part, Mapping) and not part.get("nvme_path"):
            yield Mistake(f"{key}.device", "a disk needs nvme_path", "give the path of a folder")
        if device == "nvme" and zero.get("stage") in (0, 1, 2):
            yield Mistake(f"{key}.device", "only stage 3 can use a disk", 'write "cpu"')
        elif device == "cpu" and name == "offload_param" and zero.get("stage") in (0, 1, 2):
            yield Mistake(f"{key}.device", "only stage 3 moves weights: DeepSpeed ignores it",
                          "remove it, or use stage 3", "warning")  # fmt: skip


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def lines(text: str) -> dict[str, int]:
    """The line of each key of a JSON object, by its dotted path."""
    found: dict[str, int] = {}
    path: list[str] = []
    name, line, position = "", 1, 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        match token[0]:
            case "{" | "[":
                path.append(name)
                name = ""
            case "}" | "]":
                path.pop()
            case ":":
                found[".".join(part for part in (*path, name) if part)] = line
            case ",":
                name = ""
            case quoted:
                name = json.loads(quoted, strict=False)
    return found
