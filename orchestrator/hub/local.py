"""Whether a model in a folder of one's own is whole, as far as its files tell without torch.

A clone without Git LFS, or a copy that was broken off, looks like a model until a job that has
waited in the queue loads it.
"""

from pathlib import Path

from orchestrator.artifacts import read_header
from orchestrator.errors import ArtifactError
from orchestrator.files import read_json
from orchestrator.hub import choosing

POINTER = b"version https://git-lfs.github.com/"


def flaw(folder: Path, *, weights: bool = True) -> str:
    """What is missing or broken in a model's folder; empty if nothing is. `weights`: they too."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    loaded = choosing.weights_of(names)
    for name in choosing.of_model(names):
        if _is_pointer(folder / name) and (weights or name not in loaded):
            return f"{name} is only a pointer of Git LFS (`git lfs pull` brings the file)"
    if not weights:
        return ""
    if not loaded:
        return f"it has no {choosing.WEIGHTS_WORDS}"
    return _missing_shard(folder, names, loaded) or _broken(folder, loaded)


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(len(POINTER)) == POINTER


def _missing_shard(folder: Path, names: list[str], loaded: list[str]) -> str:
    for index in names:
        if choosing.is_index_of(index, loaded):
            document = read_json(folder / index)
            shards = document.get("weight_map", {}).values() if isinstance(document, dict) else ()
            missing = sorted({*shards} - {*names})
            if missing:
                return f"{missing[0]}, which {index} names, is missing"
    return ""


def _broken(folder: Path, loaded: list[str]) -> str:
    for name in loaded:
        if name.endswith(".safetensors"):
            try:
                read_header(folder / name)
            except ArtifactError as error:
                return error.message
    return ""
