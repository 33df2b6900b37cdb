"""Several axolotl processes on a CPU, for tests only.

axolotl 0.19.0 with accelerate 1.13.0 assumes a GPU per rank. Without one, and started by torchrun
(DeepSpeed with a single process too), these places break; each is patched only then, so a run on
GPUs is never touched:

* accelerate picks gloo on several CPU processes only if told ``cpu=True``; axolotl never does, and
  each rank would train alone and write the same output directory;
* axolotl's ``normalize_config`` forces ``device_map: {"": LOCAL_RANK}``, a GPU number, and
  ``ModelLoader`` does it again for QLoRA with FSDP;
* axolotl starts DeepSpeed with the nccl backend whatever the device.
"""

import os
from typing import Any

from .deepspeed_cpu import plain_communication


def active() -> bool:
    """No CUDA device, and torchrun started this process."""
    import torch

    return "WORLD_SIZE" in os.environ and not torch.cuda.is_available()


def enable() -> None:
    """Apply the patches where they are needed, once."""
    if active():
        use_gloo()
        use_cpu_device_map()
        use_gloo_in_deepspeed()


def use_gloo() -> None:
    """Let accelerate see several CPU processes as what they are."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    original = PartialState._prepare_backend
    if getattr(original, "by_ft", False):
        return

    def prepare_backend(self: Any, *args: Any, **kwargs: Any) -> Any:
        backend, kind = original(self, *args, **kwargs)
        if kind == DistributedType.NO:
            return "gloo", DistributedType.MULTI_CPU
        return backend, kind

    prepare_backend.by_ft = True  # type: ignore[attr-defined]
    PartialState._prepare_backend = prepare_backend


def use_cpu_device_map() -> None:
    """Keep the model loader from placing weights on GPU number LOCAL_RANK."""
    from axolotl.loaders.model import ModelLoader

    original = ModelLoader._set_device_map_config
    if getattr(original, "by_ft", False):
        return

    def set_device_map(self: Any) -> None:
        original(self)
        chosen = self.model_kwargs.get("device_map")
        if isinstance(chosen, dict) and isinstance(chosen.get(""), int):
            self.model_kwargs["device_map"] = {"": "cpu"}

    set_device_map.by_ft = True  # type: ignore[attr-defined]
    ModelLoader._set_device_map_config = set_device_map


def use_gloo_in_deepspeed() -> None:
    """Replace the hard-coded nccl backend, if DeepSpeed is there."""
    try:
        import deepspeed
    except ImportError:
        return
    plain_communication()
    original = deepspeed.comm.init_distributed
    if getattr(original, "by_ft", False):
        return

    def init_distributed(dist_backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        backend = "gloo" if dist_backend == "nccl" else dist_backend
        return original(backend, *args, **kwargs)

    init_distributed.by_ft = True  # type: ignore[attr-defined]
    deepspeed.comm.init_distributed = init_distributed
    deepspeed.init_distributed = init_distributed


def fix_device_map(cfg: Any) -> None:
    """Undo the GPU device map in the loaded configuration."""
    if active():
        cfg.device_map = {"": "cpu"}
