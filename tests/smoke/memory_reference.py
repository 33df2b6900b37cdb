"""Run inside a backend environment: what transformers, peft and torch really count and allocate.

Reads one JSON request on stdin and writes one JSON answer on stdout. `counts` makes each model on
the meta device and counts its parameters. `peaks` runs two training steps on fake tensors (shapes
and storages without data: no GPU and no memory are needed, whatever the size) and follows every
storage that is allocated and freed, so the peaks are those of the real code, without the
allocator's rounding and without CUDA.
"""

import json
import sys
import weakref
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import CONFIG_MAPPING, AutoModelForCausalLM


class Live(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of all storages that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += self.sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.note, out)
        return out


def config(values: dict[str, Any]) -> Any:
    """The configuration class's own object, defaults filled in."""
    rest = {k: v for k, v in values.items() if k not in ("model_type", "dtype")}
    return CONFIG_MAPPING[values["model_type"]](**rest)


def count(values: dict[str, Any]) -> int:
    """Parameters of the model class, tied ones once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(values))
    return sum(parameter.numel() for parameter in model.parameters())


def recast(model: Any, chosen: Any, dtype: torch.dtype) -> None:
    """Put parameters into another type; `Module.to` cannot do it with fake tensors."""
    for name, module in list(model.named_modules()):
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and chosen(name, parameter):
                fresh = torch.nn.Parameter(parameter.detach().to(dtype))
                fresh.requires_grad_(parameter.requires_grad)
                module._parameters[key] = fresh
    model.tie_weights()


def adapted(model: Any, request: dict[str, Any]) -> Any:
    """The model with a LoRA in float32, as peft makes one on a 16-bit base."""
    from peft import LoraConfig, get_peft_model

    apply = torch.nn.Module._apply
    torch.nn.Module._apply = lambda self, *_, **__: self
    try:
        lora = LoraConfig(
            r=request["lora"],
            target_modules=request.get("targets") or "all-linear",
            lora_dropout=request.get("dropout", 0.0),
            use_dora=False,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    finally:
        torch.nn.Module._apply = apply
    recast(model, lambda name, _: "lora_" in name, torch.float32)
    return model


def made(request: dict[str, Any]) -> Any:
    """The model as its backend holds it."""
    settings = config(request["config"])
    settings._attn_implementation = request.get("attention", "sdpa")
    settings.use_cache = False
    whole = torch.float32 if request["hold"] == "float32" else torch.bfloat16
    torch.set_default_dtype(whole)
    model = AutoModelForCausalLM.from_config(settings)
    torch.set_default_dtype(torch.float32)
    model.train()
    if request["hold"] == "axolotl":
        edges = ("norm", "embed_tokens", "lm_head")
        recast(model, lambda name, _: any(part in name for part in edges), torch.float32)
    if request.get("lora"):
        model = adapted(model, request)
    if request.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if request.get("lora"):
            model.enable_input_require_grads()
    return model


def peak(request: dict[str, Any]) -> dict[str, int]:
    """Peaks of the second of two training steps, by moment."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = made(request)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)
        forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
        live = Live()
        for tensor in (*model.parameters(), *model.buffers()):
            live.note(tensor)
        held = live.now
        ids = torch.randint(0, 100, (request["batch"], request["sequence"]))
        peaks: dict[str, int] = {}
        with live:
            for _ in range(2):
                peaks = {}
                for _ in range(request.get("accumulation", 1)):
                    step(live, peaks, lambda: forward(input_ids=ids, labels=ids)["loss"])
                live.peak = live.now
                optimizer.step()
                peaks["step"] = live.peak
                optimizer.zero_grad()
        return {
            "weights": held,
            "trained": sum(p.numel() for p in trained),
            "peak": max(peaks[name] for name in ("forward", "backward", "step")),
            **peaks,
        }


def step(live: Live, peaks: dict[str, int], compute: Any) -> None:
    """One forward and backward pass."""
    live.peak = live.now
    loss = compute()
    peaks["forward"] = max(peaks.get("forward", 0), live.peak)
    peaks["saved"] = live.now
    live.peak = live.now
    loss.backward()
    peaks["backward"] = max(peaks.get("backward", 0), live.peak)


def zero_two(request: dict[str, Any]) -> dict[str, int]:
    """DeepSpeed's own estimate of the model states of a GPU under ZeRO-2, by number of GPUs."""
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    return {
        str(gpus): estimate_zero2_model_states_mem_needs(
            request["parameters"], gpus, 1, cpu_offload=False
        )[1]
        for gpus in request["gpus"]
    }


def main() -> None:
    """Answer the request in the last line of stdout; DeepSpeed prints there, too."""
    request = json.load(sys.stdin)
    answer = {
        "counts": {name: count(values) for name, values in request.get("counts", {}).items()},
        "peaks": [peak(entry) for entry in request.get("peaks", ())],
        "deepspeed": zero_two(request["deepspeed"]) if "deepspeed" in request else None,
    }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
