"""What a user writes: the recipe, neutral of the backend, strict in every section.

A field's meaning is in `sections/`; how each backend writes it is in `backends/fields/` (fields
that are one key of a backend) and `backends/<name>/` (the others), and what a backend cannot do in
`backends/capabilities.py`. Rules over several fields are in `checks/`.
"""

from typing import Any, Literal

from pydantic import Field

from orchestrator.recipe.sections.adapter import Adapter
from orchestrator.recipe.sections.base import Cadence, Section, Slug
from orchestrator.recipe.sections.data import ColumnRole, Data, DataFormat, Prompt, Source
from orchestrator.recipe.sections.inspect import Inspect
from orchestrator.recipe.sections.model import Dtype, Family, Kernels, Model, Quantization, Tokens
from orchestrator.recipe.sections.optimizers import Optimizer, Scheduler
from orchestrator.recipe.sections.preference import Preference
from orchestrator.recipe.sections.running import Distributed, Fsdp, Output, Strategy, Tracking
from orchestrator.recipe.sections.training import Stage, Training

__all__ = [
    "COLUMNS", "STAGE_FORMATS", "Adapter", "BackendName", "Cadence", "ColumnRole", "Data",
    "DataFormat", "Distributed", "Dtype", "Family", "Fsdp", "Inspect", "Kernels", "Model",
    "Native",
    "Optimizer", "Output", "Preference", "Prompt", "Quantization", "Recipe", "Scheduler",
    "Section", "Source", "Stage", "Strategy", "Tokens", "Tracking", "Training", "column",
]  # fmt: skip

BackendName = Literal["axolotl", "llamafactory"]


class Native(Section):
    """Backend options that no neutral field covers; checked against the pinned release's keys."""

    axolotl: dict[str, Any] = Field(default_factory=dict, description="axolotl keys")
    llamafactory: dict[str, Any] = Field(default_factory=dict, description="LLaMA-Factory keys")


class Recipe(Section):
    """A whole fine-tune."""

    name: Slug = Field(description="name of the recipe and of its runs")
    description: str = Field("", description="what it is for")
    backend: BackendName = Field("axolotl", description="axolotl or llamafactory")
    model: Model
    tokens: Tokens = Field(default_factory=Tokens)
    data: Data
    adapter: Adapter = Field(default_factory=Adapter)
    kernels: Kernels = Field(default_factory=Kernels)
    training: Training
    distributed: Distributed = Field(default_factory=Distributed)
    tracking: Tracking = Field(default_factory=Tracking)
    inspect: Inspect = Field(default_factory=Inspect)
    output: Output = Field(default_factory=Output)
    native: Native = Field(default_factory=Native)


COLUMNS: dict[DataFormat, dict[ColumnRole, str | None]] = {
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output",
               "system": None, "history": None, "tools": None, "images": None, "videos": None,
               "audios": None},
    "messages": {"messages": "messages", "role": "role", "content": "content", "system": None,
                 "tools": None, "images": None, "videos": None, "audios": None, "thinking": None,
                 "train": None, "train_detail": None},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value", "system": None,
                 "tools": None, "images": None, "videos": None, "audios": None, "thinking": None,
                 "train": None, "train_detail": None},
    "text": {"text": "text"},
    "preference": {"messages": "messages", "chosen": "chosen", "rejected": "rejected",
                   "role": "role", "content": "content", "system": None, "tools": None,
                   "images": None},
    "kto": {"prompt": "prompt", "completion": "completion", "label": "label"},
    "pieces": {"messages": "segments"},
    "registered": {},
    "custom": {"messages": None, "role": None, "content": None, "text": None, "instruction": None,
               "input": None, "output": None, "chosen": None, "rejected": None, "prompt": None,
               "system": None, "tools": None, "completion": None, "label": None},
}  # fmt: skip
"""Columns of each format and their usual names; None: used only if the recipe names it."""

_ANY: tuple[DataFormat, ...] = ("registered", "custom")
STAGE_FORMATS: dict[Stage, tuple[DataFormat, ...]] = {
    "pretrain": ("text", *_ANY),
    "sft": ("alpaca", "messages", "sharegpt", "text", "pieces", *_ANY),
    "dpo": ("preference", *_ANY),
    "orpo": ("preference", *_ANY),
    "reward": ("preference", *_ANY),
    "process_reward": _ANY,
    "kto": ("kto", *_ANY),
    "ppo": ("alpaca", "messages", "sharegpt", *_ANY),
    "grpo": _ANY,
    "gdpo": _ANY,
    "ebft": _ANY,
}
"""Data formats that a stage can train on."""


def column(source: Source, role: ColumnRole) -> str | None:
    """The name of a column in the data of `source`; None if there is none."""
    if role in source.columns:
        return source.columns[role]
    return COLUMNS[source.format].get(role)
