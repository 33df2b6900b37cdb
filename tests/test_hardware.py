"""GPUs as the driver tells them: a real program answers, in place of nvidia-smi."""

from pathlib import Path

import pytest

from orchestrator import hardware
from tests.helpers import loaded

ROWS = """0, GPU-aaaa, NVIDIA A100-SXM4-40GB, 40960, 8.0
1, GPU-bbbb, Tesla V100-SXM2-16GB, 16384, 7.0
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<END\n{ROWS}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["0", "1"]),
        ("1,0", ["1", "0"]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["1"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("GPU-bb", ["GPU-bb"]),
    ],
)
def test_visible_gpus_in_cuda_s_order(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.index for gpu in hardware.gpus()] == seen


def test_target_follows_the_weakest_gpu(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = loaded(**{"distributed.strategy": "ddp"}).recipe
    target = hardware.target_for(recipe, hardware.gpus())
    assert (target.device, target.processes, target.dtype("auto")) == ("cuda", 2, "float16")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    target = hardware.target_for(recipe, hardware.gpus())
    assert (target.processes, target.dtype("auto")) == (1, "bfloat16")


def test_old_driver_without_compute_capability(driver: Path) -> None:
    driver.write_text(
        "#!/bin/sh\ncase $1 in *compute_cap*) exit 2;; esac\necho '0, GPU-a, K80, [N/A]'\n"
    )
    (gpu,) = hardware.gpus()
    assert (gpu.memory, gpu.capability) == (0, 0.0)


def test_no_driver_is_a_cpu_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = loaded().recipe
    assert hardware.gpus() == ()
    assert hardware.target_for(recipe, ()).dtype("bfloat16") == "float32"
    assert [f.level for f in hardware.problems(recipe, ())] == ["warning"]


def test_more_gpus_than_there_are(driver: Path) -> None:
    recipe = loaded(**{"distributed.strategy": "ddp", "distributed.gpus": 4}).recipe
    (finding,) = hardware.problems(recipe, hardware.gpus())
    assert (finding.level, finding.fix) == ("error", "--set distributed.gpus=2")
    assert list(hardware.problems(loaded().recipe, hardware.gpus())) == []


def test_a_disk_needs_page_locked_memory(driver: Path) -> None:
    driver.with_name("c++").symlink_to(driver)
    spread = {"strategy": "deepspeed", "zero_stage": 3, "offload": "optimizer", "nvme": "/disk"}
    recipe = loaded(**{"distributed": spread}).recipe
    told = {(f.code, f.level) for f in hardware.problems(recipe, ())}
    assert ("FT237", "error") in told
    assert list(hardware.problems(recipe, hardware.gpus())) == []
