"""Is this environment fit to train? Checks by doing, not by reading version numbers.

Each check is a function that returns its finding; whatever it raises becomes a ``fail`` line, so a
broken library never hides the checks after it. A library that kills the process (a bad binary) is
the one thing this cannot report; the orchestrator sees that as a missing result.
"""

import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .request import Request, Result, text
from .versions import version, versions

Level = Literal["ok", "warn", "fail"]
REINSTALL = "Install the environment again: ft backend install {backend} --reinstall"
SUPPORTED = ((3, 10), (3, 13))


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    check: str
    level: Level
    detail: str
    remedy: str = ""


def python() -> Check:
    """The interpreter."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return Check("python", "ok", detail)
    return Check(
        "python", "fail", detail, "Both backends want Python 3.10 to 3.13; 3.11 is tested."
    )


def packages(backend: str) -> Iterator[Check]:
    """The versions that a run depends on."""
    needed = (backend, "torch", "transformers", "accelerate", "peft", "trl", "datasets")
    found = versions()
    listed = ", ".join(f"{name} {number}" for name, number in found.items() if name != "python")
    missing = [name for name in needed if name not in found]
    if missing:
        remedy = REINSTALL.format(backend=backend)
        yield Check("packages", "fail", f"missing: {', '.join(missing)}; {listed}", remedy)
    else:
        yield Check("packages", "ok", listed)
    if version("wandb") is None:
        yield Check("wandb", "warn", "not installed", "Needed only with tracking.type: wandb.")


def backend_import(backend: str) -> Check:
    """What training imports, imported."""
    if backend == "axolotl":
        import axolotl.cli.train
        import axolotl.train

        return Check("import", "ok", f"axolotl {version('axolotl')}")
    from . import torchaudio_stub

    stubbed = torchaudio_stub.install()
    import llamafactory.train.tuner

    assert llamafactory.train.tuner.run_exp
    audio = "torchaudio is stubbed (text only)" if stubbed else "torchaudio is installed"
    return Check("import", "ok", f"llamafactory {version('llamafactory')}; {audio}")


def driver() -> str:
    """The NVIDIA driver, as its own tool names it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "nvidia-smi not found"
    answer = subprocess.run(
        [tool, "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    lines = answer.stdout.split()
    return f"driver {lines[0]}" if answer.returncode == 0 and lines else "nvidia-smi failed"


def device() -> Iterator[Check]:
    """GPU or CPU, and whether the build of torch matches the machine."""
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        names = []
        for index in range(torch.cuda.device_count()):
            settings = torch.cuda.get_device_properties(index)
            names.append(
                f"{settings.name} ({settings.total_memory / 2**30:.0f} GiB, "
                f"sm_{settings.major}{settings.minor})"
            )
        yield Check("device", "ok", f"{', '.join(names)}; CUDA {built}, {driver()}")
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if bf16:
            yield Check("bf16", "ok", "supported")
        else:
            yield Check("bf16", "warn", "not supported by this GPU", "Use model.dtype: float16.")
        return
    if built is None:
        detail = f"CPU only, torch {torch.__version__} without CUDA, {os.cpu_count()} cores"
        has_gpu = shutil.which("nvidia-smi") is not None and driver().startswith("driver")
        remedy = "This machine has a GPU: install the environment with the CUDA build of torch."
        yield Check("device", "fail" if has_gpu else "warn", detail, remedy if has_gpu else "")
    else:
        yield Check(
            "device",
            "warn",
            f"torch is built for CUDA {built} but sees no GPU ({driver()})",
            "On a login node this is normal. On a GPU node: update the driver, or install a torch "
            "built for an older CUDA.",
        )
    yield Check("bf16", "warn", "no GPU: training on the CPU is float32 (smoke tests only)")


def nf4() -> Check:
    """Quantize a matrix to nf4 and back, as QLoRA does."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    where = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(128, 128, generator=torch.Generator().manual_seed(0)).to(where)
    packed, state = quantize_4bit(matrix, quant_type="nf4", compress_statistics=True)
    error = float((dequantize_4bit(packed, state) - matrix).abs().mean())
    detail = f"bitsandbytes {version('bitsandbytes')} on {where}, mean error {error:.3f}"
    if error < 0.15:
        return Check("nf4", "ok", detail)
    return Check(
        "nf4", "fail", detail, "Quantized training would be wrong; reinstall bitsandbytes."
    )


def deepspeed() -> Iterator[Check]:
    """DeepSpeed imports, and has the compiler that it needs at run time."""
    if version("deepspeed") is None:
        yield Check("deepspeed", "warn", "not installed", "Needed only for distributed: deepspeed.")
        return
    import deepspeed as imported

    yield Check("deepspeed", "ok", f"deepspeed {imported.__version__}")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler:
        yield Check("compiler", "ok", compiler)
    else:
        yield Check(
            "compiler",
            "warn",
            "no C++ compiler on PATH",
            "DeepSpeed compiles parts of itself at run time (CPU communication, offloaded "
            "optimizers): install g++ or load a compiler module.",
        )


def flash_attention() -> Check:
    """flash-attn is optional: sdpa is used without it."""
    if version("flash-attn") is None:
        return Check("flash-attn", "warn", "not installed; sdpa attention is used")
    import flash_attn

    return Check("flash-attn", "ok", f"flash-attn {flash_attn.__version__}")


def training_step() -> Check:
    """A forward and a backward pass through a tiny model on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    where = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    model = LlamaForCausalLM(config).to(where)
    ids = torch.arange(16, device=where).unsqueeze(0)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    value = float(loss)
    if value == value and model.lm_head.weight.grad is not None:
        return Check("step", "ok", f"forward and backward on {where}, loss {value:.2f}")
    return Check("step", "fail", f"loss {value} on {where}", "torch is broken here; reinstall it.")


def attempt(name: str, run: Callable[[], Any], backend: str) -> list[Check]:
    """The findings of one check; a failure to run it is a finding, too.

    Everything is caught, SystemExit included: any import of a third-party package may fail in any
    way, and reporting that is what this task is for.
    """
    try:
        found = run()
        return [found] if isinstance(found, Check) else list(found)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        detail = f"{type(error).__name__}: {lines[-1][:300]}"
        return [Check(name, "fail", detail, REINSTALL.format(backend=backend))]


def doctor(request: Request) -> Result:
    """Run every check; ``checks`` lists them in the order of dependence."""
    backend = text(request, "backend")
    checks: dict[str, Callable[[], Any]] = {
        "python": python,
        "packages": lambda: packages(backend),
        "device": device,
        "step": training_step,
        "nf4": nf4,
        "import": lambda: backend_import(backend),
        "deepspeed": deepspeed,
        "flash-attn": flash_attention,
    }
    found = [line for name, run in checks.items() for line in attempt(name, run, backend)]
    return {"checks": [asdict(line) for line in found], "versions": versions()}
