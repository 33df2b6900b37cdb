"""Which build of torch an environment gets.

The locks know two: `cpu`, and `cuda`, which is what the registry delivers by default. Any other
build that uv can find (`cu126`, `rocm7.1`) takes the CUDA lock without torch, which uv then adds
from PyTorch's own index; those few packages are pinned, but not hashed.
"""

import functools
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator import shell
from orchestrator.environments import indexes, uv
from orchestrator.environments.locks import Build, Lock, load
from orchestrator.errors import LaunchError, UsageError

# The locked CUDA builds are for CUDA 13, which no older driver runs; 12.x runs on 525 and newer.
CUDA_13_DRIVER = 580
OLDER_CUDA = "cu126"
OTHER_BUILDS = re.compile(r"(cu\d{2,3}|rocm\d+(\.\d+)*|xpu)$")


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """A chosen build: its name (part of the folder's name), the lock that serves it, and why.

    `backend` is uv's `--torch-backend`; with `replaced`, torch comes from there and not from the
    lock.
    """

    name: str
    lock: Build
    reason: str
    backend: str = ""
    replaced: bool = False


def choose(torch: str, backend: str, *, environ: Mapping[str, str] | None = None) -> TorchBuild:
    """The build that `--torch` asks for.

    `auto` is CUDA when this machine has an NVIDIA driver, else the small CPU build if a package
    source has it, else CUDA too, which runs on a CPU and is only larger.

    Raises:
        UsageError: no build is called so.
    """
    if torch == "cpu":
        if has_cpu_torch(load(backend, "cpu"), environ):
            return TorchBuild("cpu", "cpu", "asked for")
        return TorchBuild("cpu", "cpu", "asked for; from PyTorch's own index", backend="cpu")
    if torch == "cuda":
        return TorchBuild("cuda", "cuda", "asked for")
    if torch != "auto":
        if not OTHER_BUILDS.match(torch):
            raise UsageError(
                f"there is no build of torch called {torch!r}",
                hint="use auto, cpu, cuda or one that uv knows, such as cu126",
            )
        return TorchBuild(torch, "cuda", "asked for", backend=torch, replaced=True)
    driver = nvidia_driver()
    if driver is None:
        if has_cpu_torch(load(backend, "cpu"), environ):
            return TorchBuild("cpu", "cpu", "no NVIDIA driver here; --torch cuda for GPU nodes")
        return TorchBuild("cuda", "cuda", "no package source has a CPU build of torch")
    if 0 < driver < CUDA_13_DRIVER:
        reason = f"the NVIDIA driver {driver} is too old for CUDA 13"
        return TorchBuild(OLDER_CUDA, "cuda", reason, backend=OLDER_CUDA, replaced=True)
    return TorchBuild("cuda", "cuda", "this machine has an NVIDIA driver")


def nvidia_driver(proc: Path = Path("/proc/driver/nvidia/version")) -> int | None:
    """The NVIDIA driver's major version; 0 when there is one of unknown version, None without."""
    try:
        text = proc.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if match := re.search(r"\s(\d{3})\.\d+", text):
        return int(match[1])
    if text:
        return 0
    asked = _driver_asked()
    return 0 if asked is None and Path("/dev/nvidiactl").exists() else asked


@functools.cache
def _driver_asked() -> int | None:
    """The driver's major version by `nvidia-smi`, which takes a second; None when it has none."""
    if program := shutil.which("nvidia-smi"):
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            code, answer, _ = shell.capture(
                query, env={**shell.base_environment(), "PATH": shell.system_path()}, timeout=20
            )
        except LaunchError:
            return None  # installed, but does not answer: a login node without a driver
        if code == 0 and (match := re.match(r"(\d+)\.", answer)):
            return int(match[1])
    return None


def gpu_visible(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a process started now would find a GPU."""
    environ = os.environ if environ is None else environ
    if environ.get("CUDA_VISIBLE_DEVICES", "?").strip() in ("", "-1"):
        return False
    return nvidia_driver() is not None or Path("/dev/kfd").exists()


def has_cpu_torch(lock: Lock, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a configured package source has the CPU build of torch that the lock names.

    uv answers by resolving just that, which takes half a second and downloads nothing.
    """
    found = indexes.sources(environ)
    version = lock.pythons[0]
    arguments = ("pip", "install", "--dry-run", "--no-deps", "--quiet", *found.flags)
    place = ("--python", sys.executable, "--target", "/nonexistent", "--python-version", version)
    argv = uv.command(*arguments, *place, f"torch=={lock.version('torch')}")
    env = uv.environment(found, environ)
    try:
        code, _, _ = shell.capture(argv, env=env, cwd=Path("/"), timeout=120)
    except LaunchError:
        return False
    return code == 0
