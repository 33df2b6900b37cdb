"""Adapters and models are judged from their headers."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts import (
    check_adapter,
    check_model,
    read_header,
    read_weights,
)
from orchestrator.checkpoints import complete_checkpoints
from orchestrator.errors import ArtifactError


def write_tensors(path: Path, shapes: Mapping[str, list[int]]) -> Path:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def adapter(folder: Path, rank: int = 4, width: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    write_tensors(
        folder / "adapter_model.safetensors",
        {"q.lora_A.weight": [rank, width], "q.lora_B.weight": [width, rank]},
    )
    return folder


def test_sound_adapter(tmp_path: Path) -> None:
    assert check_adapter(adapter(tmp_path), 4) == {
        "tensors": 2, "parameters": 64, "bytes": 256,
    }  # fmt: skip


def test_adapter_of_another_rank(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not fit rank 16"):
        check_adapter(adapter(tmp_path), 16)


def test_empty_tensors_as_zero_3_leaves_them(tmp_path: Path) -> None:
    adapter(tmp_path)
    write_tensors(
        tmp_path / "adapter_model.safetensors", {"q.lora_A.weight": [0], "q.lora_B.weight": [0]}
    )
    with pytest.raises(ArtifactError, match="2 of 2 tensors"):
        check_adapter(tmp_path, 4)


def test_adapter_without_config_or_weights(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"adapter_config\.json"):
        check_adapter(tmp_path, 4)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no weights"):
        check_adapter(tmp_path, 4)


def test_file_cut_short(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "m.safetensors", {"a": [4, 4]})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="cut short"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 2) + b"[]"])
def test_files_that_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        read_header(path)


def test_sharded_weights(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"x": [2]})
    write_tensors(tmp_path / "b.safetensors", {"y": [3]})
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path).parameters == 5
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ArtifactError):
        read_weights(tmp_path)


def test_model_needs_config_and_tokenizer(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": [8, 2]})
    with pytest.raises(ArtifactError, match=r"config\.json"):
        check_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ArtifactError, match="no tokenizer"):
        check_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match="does not load"):
        check_model(tmp_path)


def checkpoint(folder: Path, step: int, state: str) -> Path:
    made = adapter(folder / f"checkpoint-{step}")
    (made / "trainer_state.json").write_text(state)
    return made


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10, '{"global_step": 10}')
    checkpoint(tmp_path, 9, '{"global_step": 9}')
    checkpoint(tmp_path, 20, '{"global_st')
    cut = checkpoint(tmp_path, 30, '{"global_step": 30}') / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-4])
    checkpoint(tmp_path, 40, '{"global_step": 39}')
    assert [path.name for path in complete_checkpoints(tmp_path)] == [
        "checkpoint-9",
        "checkpoint-10",
    ]
