"""The plan beside what was measured: kept in `run.json`, shown by `ft plan accuracy`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.files import read_json
from orchestrator.memory import lookup
from orchestrator.memory.estimate import estimate
from orchestrator.memory.gpus import GIB
from orchestrator.memory.layout import layout
from orchestrator.memory.model import read
from orchestrator.memory.settings import settings
from orchestrator.memory.term import Estimate
from orchestrator.plan import Plan
from orchestrator.runs.record import Record

CPU_PROCESS = int(0.75 * GIB)
"""Host memory of a training process without CUDA: Python, torch, transformers and the backend;
smoke runs of models of a few megabytes measured 0.81 GiB with axolotl 0.19.0 and 0.66 GiB with
LLaMA-Factory 0.9.5."""


def beside(plan: Plan, measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `run.json` keeps of a training: predicted and measured bytes of one process.

    None where the model's config cannot be had without a network, or means nothing to us.
    """
    found = _config(plan)
    if found is None:
        return None
    recipe, target = plan.recipe, plan.context.target
    try:
        architecture = read(found)
    except UsageError:
        return None
    own = plan.context.deepspeed
    spread = layout(recipe, target.processes, own=own if isinstance(own, dict) else None)
    predicted = estimate(architecture, settings(recipe, architecture, target), spread)
    return {
        "predicted": _predicted(predicted, target.device),
        "measured": dict(measured) if measured else None,
        "device": target.device,
    }


def _config(plan: Plan) -> dict[str, Any] | None:
    base = plan.context.base
    if base:
        config = read_json(Path(base) / "config.json")
        return config if isinstance(config, dict) else None
    found = lookup.offline(plan.recipe, Path.cwd())
    return found.config if found else None


def _predicted(found: Estimate, device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "layout": found.layout.name,
        "peak": found.moment,
        "allocated": found.allocated,
        "groups": found.groups,
    }
    if device == "cuda":
        return {**facts, "total": found.total}
    return {**facts, "total": found.allocated + CPU_PROCESS}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run: predicted and measured bytes of what is comparable on its device."""

    run: str
    recipe: str
    layout: str
    what: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """Relative error of the prediction; positive: too much was predicted."""
        return self.predicted / self.measured - 1

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": self.run,
            "recipe": self.recipe,
            "layout": self.layout,
            "what": self.what,
            "predicted_bytes": self.predicted,
            "measured_bytes": self.measured,
            "error": round(self.error, 4),
        }


def compare(record: Record) -> Comparison | None:
    """A run's comparison; None if it did not train or could not be predicted.

    On a GPU that is the allocated bytes, which no allocator setting changes; on a CPU the host
    memory of the process, most of which is Python and torch themselves.
    """
    facts = record.document.get("stages", {}).get("train", {}).get("facts") or {}
    memory = facts.get("memory")
    if not isinstance(memory, Mapping) or not memory.get("measured"):
        return None
    predicted, measured = memory["predicted"], memory["measured"]
    gpu = measured.get("cuda_allocated")
    value = gpu or measured.get("host")
    if not value:
        return None
    return Comparison(
        run=record.layout.id,
        recipe=str(record.document.get("recipe", "")),
        layout=str(predicted.get("layout", "")),
        what="GPU, allocated" if gpu else "CPU process",
        predicted=int(predicted["allocated"] if gpu else predicted["total"]),
        measured=int(value),
    )


def summary(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Median and worst error over the runs on GPUs; CPU runs say little, and are not counted."""
    errors = [c.error for c in comparisons if c.what.startswith("GPU")]
    if not errors:
        return {"gpu_runs": 0, "median_error": None, "worst_error": None}
    return {
        "gpu_runs": len(errors),
        "median_error": round(statistics.median(abs(error) for error in errors), 4),
        "worst_error": round(sorted(errors, key=abs)[-1], 4),
    }
