"""The wheel carries everything, and what is in it is found there."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_wheel_has_recipes_locks_probe_and_data(unpacked: Path) -> None:
    package = unpacked / "orchestrator"
    assert sorted(path.name for path in (package / "_shipped" / "recipes").iterdir()) == sorted(
        path.name for path in (ROOT / "recipes").glob("*.yaml")
    )
    assert (package / "_shipped" / "deepspeed_configs" / "ds_z3.json").is_file()
    assert (package / "_shipped" / "clusters" / "slurm-generic.yaml").is_file()
    assert (package / "probe" / "stage.py").is_file()
    assert list((package / "smoke_data").glob("*.jsonl"))
    assert list((package / "environments" / "locks").glob("*.txt"))
    assert (package / "backends" / "axolotl" / "keys.json").is_file()


def test_installed_package_finds_its_recipes(unpacked: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli.main import main; main()", "recipe", "plan",
         "mistral-qlora", "--smoke", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(unpacked), "FT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{unpacked}/orchestrator/probe/stage.py" in done.stdout
