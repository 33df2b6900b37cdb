"""In which types a backend really holds the weights: read in its code, not in its documentation.

| who | without sharding | DeepSpeed | FSDP 2 |
| --- | --- | --- | --- |
| axolotl, full | bfloat16; embeddings, lm_head and norms in float32 unless the attention kernel is a flash one or CCE is on (`ModelLoader._configure_embedding_dtypes`) | bfloat16 + float32 master | as loaded: accelerate 1.13's float32 cast is assigned to a local name and lost (`fsdp2_prepare_model`) |
| axolotl, LoRA | base bfloat16 or 4 bit, LoRA float32 (peft's `autocast_adapter_dtype`) | all bfloat16 + float32 master of the LoRA | base as loaded |
| LLaMA-Factory, full | all float32 under autocast, unless `pure_bf16` (`init_adapter`) | bfloat16 + float32 master | float32: accelerate 1.11 casts the whole model |
| LLaMA-Factory, LoRA | base in the checkpoint's type or 4 bit, LoRA float32 | all bfloat16 + float32 master of the LoRA | float32, the frozen base too |

DeepSpeed casts the module (`engine._configure_distributed_model`: `module.bfloat16()`) and keeps a
float32 master copy of what is trained, cut over the GPUs.
"""  # noqa: E501

from dataclasses import dataclass

from orchestrator.memory.layout import Layout
from orchestrator.memory.model import Architecture
from orchestrator.memory.settings import Settings


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes per number: of the layers' matrices, of embeddings, lm_head and norms (`edges`), of a
    LoRA, of the residual stream; `master`: DeepSpeed's float32 copies are kept."""

    layers: int
    edges: int
    lora: int
    residual: int
    master: bool
    source: str

    @property
    def casts(self) -> bool:
        """Whether autocast copies float32 matrices of the layers for every forward pass."""
        return self.layers == 4


def precision(architecture: Architecture, settings: Settings, layout: Layout) -> Precision:
    """How the backend of `settings` holds its weights under `layout`."""
    compute = settings.compute
    if compute == 4:
        return Precision(4, 4, 4, 4, layout.kind == "zero", "float32 throughout")
    if layout.kind == "zero":
        text = "DeepSpeed casts the model to 16 bit and keeps float32 masters of what is trained"
        return Precision(compute, compute, compute, compute, True, text)
    if settings.backend == "axolotl":
        return _axolotl(settings, layout)
    return _llamafactory(architecture, settings, layout)


def _axolotl(settings: Settings, layout: Layout) -> Precision:
    compute = settings.compute
    if layout.kind == "fsdp":
        return Precision(compute, compute, 4, compute, False, "FSDP 2 as axolotl 0.19.0 loads it")
    back = settings.attention == "flash" or settings.loss == "fused"
    if settings.lora is not None or back:
        return Precision(compute, compute, 4, compute, False, "axolotl loads in 16 bit")
    text = "axolotl loads in 16 bit, embeddings, lm_head and norms in float32"
    return Precision(compute, 4, 4, 4, False, text)


def _llamafactory(architecture: Architecture, settings: Settings, layout: Layout) -> Precision:
    compute = settings.compute
    if layout.kind == "fsdp":
        return Precision(4, 4, 4, compute, False, "accelerate 1.11 casts FSDP 2 models to float32")
    if settings.pure:
        return Precision(compute, compute, compute, compute, False, "pure_bf16")
    if settings.lora is not None:
        own = 4 if architecture.dtype.endswith("float32") else compute
        text = "LLaMA-Factory keeps the checkpoint's type for what is frozen"
        return Precision(own, own, 4, own, False, text)
    return Precision(4, 4, 4, 4, False, "LLaMA-Factory trains float32 weights under autocast")
