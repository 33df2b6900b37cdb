"""What must be true of adapters, checkpoints and models, read without torch.

A safetensors file starts with eight bytes (little-endian length of the header) and a JSON header:
name -> dtype, shape, data_offsets. That is enough to see empty tensors and files cut short.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ArtifactError
from orchestrator.files import read_json

SIZES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensors:
    """Names and shapes of the tensors in one or several files."""

    shapes: dict[str, tuple[int, ...]]
    bytes: int

    @property
    def parameters(self) -> int:
        """Number of values."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_header(path: Path) -> Tensors:
    """The tensors of a safetensors file.

    Raises:
        ArtifactError: not such a file, or shorter than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(size, MAX_HEADER):
                raise ValueError("its header is longer than the file")
            header: Any = json.loads(handle.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        shapes: dict[str, tuple[int, ...]] = {}
        end = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shapes[name] = tuple(entry["shape"])
            begin, stop = entry["data_offsets"]
            expected = math.prod(entry["shape"]) * SIZES.get(entry["dtype"], 0)
            if entry["dtype"] in SIZES and stop - begin != expected:
                raise ValueError(f"tensor {name} has {stop - begin} bytes instead of {expected}")
            end = max(end, stop)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {error}") from error
    if size < 8 + length + end:
        raise ArtifactError(
            f"{path} is cut short: {size} of {8 + length + end} bytes",
            hint="was the disk full while it was written?",
        )
    return Tensors(shapes, end)


def read_weights(folder: Path, stem: str = "model") -> Tensors:
    """All weights of a model folder: one file, or the shards of its index.

    Raises:
        ArtifactError: weights are missing or broken.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        document = read_json(index)
        named = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(named, dict):
            raise ArtifactError(f"{index} is cut short")
        names = sorted(set(named.values()))
        parts = [read_header(folder / name) for name in names]
    elif (folder / f"{stem}.safetensors").is_file():
        parts = [read_header(folder / f"{stem}.safetensors")]
    else:
        parts = []
    shapes = {name: shape for part in parts for name, shape in part.shapes.items()}
    if not shapes:
        raise ArtifactError(
            f"{folder} has no weights",
            hint="under ZeRO stage 3 they must be gathered on save: the files that ft renders do",
        )
    broken = [name for name, shape in shapes.items() if 0 in shape]
    if broken:
        raise ArtifactError(
            f"{len(broken)} of {len(shapes)} tensors in {folder} are empty, e.g. {broken[0]}",
            hint="under ZeRO stage 3 they must be gathered on save",
        )
    return Tensors(shapes, sum(part.bytes for part in parts))


def check_adapter(folder: Path, rank: int) -> dict[str, Any]:
    """A LoRA that has its config and whole, non-empty matrices of the recipe's rank.

    Raises:
        ArtifactError: it does not.
    """
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder} has no adapter_config.json")
    tensors = read_weights(folder, "adapter_model")
    down = {name: shape for name, shape in tensors.shapes.items() if "lora_A" in name}
    up = {name: shape for name, shape in tensors.shapes.items() if "lora_B" in name}
    if not down or len(down) != len(up):
        raise ArtifactError(
            f"the adapter in {folder} has {len(down)} A and {len(up)} B matrices",
        )
    patterns = config.get("rank_pattern") or {}
    other = [name for name, shape in down.items() if rank not in shape]
    if other and not patterns:
        raise ArtifactError(
            f"{other[0]} has shape {list(down[other[0]])}, which does not fit rank {rank}"
        )
    return {
        "tensors": len(tensors.shapes),
        "parameters": tensors.parameters,
        "bytes": tensors.bytes,
    }


def check_model(folder: Path) -> dict[str, Any]:
    """A model folder that a loader will take: config, whole weights, a tokenizer that loads.

    Raises:
        ArtifactError: it would not.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("model_type"):
        raise ArtifactError(f"{folder} has no config.json that says what model it is")
    tensors = read_weights(folder)
    check_tokenizer(folder)
    vocabulary = [
        shape[0] for name, shape in tensors.shapes.items() if name.endswith("embed_tokens.weight")
    ]
    return {
        "tensors": len(tensors.shapes),
        "parameters": tensors.parameters,
        "bytes": tensors.bytes,
        "vocabulary": vocabulary[0] if vocabulary else None,
    }


def check_tokenizer(folder: Path) -> None:
    """The tokenizer's files parse.

    Raises:
        ArtifactError: they are missing or broken.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        if any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json")):
            return
        raise ArtifactError(f"{folder} has no tokenizer")
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"{file} does not load: {error}") from error
