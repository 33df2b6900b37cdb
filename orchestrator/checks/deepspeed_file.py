"""A DeepSpeed configuration of the user's own: it is there, has no typing errors, and what of it
the recipe overrules (`FT234`)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.backends.base import Target
from orchestrator.distributed import own_file, own_values
from orchestrator.findings import Finding, Level, Place, errors_of
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import local_path


def deepspeed_file(recipe: Recipe, beside: Path) -> Iterator[Finding]:
    """Findings about the file that the recipe names, itself or in its native block."""
    native = getattr(recipe.native, recipe.backend).get("deepspeed")
    if isinstance(native, Mapping):
        field = f"native.{recipe.backend}.deepspeed"
        yield from _mistakes(native, field)
        yield from _contradictions(recipe, native, field)
    elif isinstance(native, str):
        yield from _look(recipe, native, f"native.{recipe.backend}.deepspeed", beside)
    elif recipe.distributed.strategy == "deepspeed" and recipe.distributed.deepspeed_file:
        name = recipe.distributed.deepspeed_file
        yield from _look(recipe, name, "distributed.deepspeed_file", beside)


def _look(recipe: Recipe, name: str, field: str, beside: Path) -> Iterator[Finding]:
    path = local_path(name, beside)
    if path is None:
        fix = "give the path of a JSON file, from the recipe's folder or from here"
        yield Finding("FT234", "error", f"there is no DeepSpeed file {name}", field=field, fix=fix)
        return
    try:
        document = own_file.read(path)
    except own_file.Unreadable as error:
        yield Finding("FT234", "error", error.message, field=field, fix=error.hint)
        return
    wrong = list(_mistakes(document, field, path))
    yield from wrong
    if field == "distributed.deepspeed_file":
        yield from _settings(recipe, document, field)
    if not errors_of(wrong):
        yield from _contradictions(recipe, document, field)


def _mistakes(
    document: Mapping[str, Any], field: str, path: Path | None = None
) -> Iterator[Finding]:
    """What DeepSpeed or the trainer cannot use, with its line in the file."""
    lines = own_values.lines(path.read_text("utf-8")) if path else {}
    for one in own_values.mistakes(document):
        place = Place(str(path), lines.get(one.key, 0)) if path else None
        text = f"{one.key}: {one.text}"
        yield Finding("FT234", one.level, text, place, field=field, fix=one.fix)


def _settings(recipe: Recipe, document: Mapping[str, Any], field: str) -> Iterator[Finding]:
    """What the recipe says beside the file, and the file otherwise."""
    spread = recipe.distributed
    zero = document.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, Mapping) else None
    if "zero_stage" in spread.model_fields_set and spread.zero_stage != stage:
        yield Finding(
            "FT234",
            "error",
            f"zero_stage is {spread.zero_stage}, the file has stage {stage}",
            field="distributed.zero_stage",
            fix="remove zero_stage, or deepspeed_file",
        )
    if spread.offload != "none" or spread.nvme:
        yield Finding(
            "FT234",
            "error",
            "what is offloaded is said in the file",
            field="distributed.offload" if spread.offload != "none" else "distributed.nvme",
            fix="remove it, or deepspeed_file",
        )

    tensor = document.get("tensor_parallel")
    size = tensor.get("autotp_size") if isinstance(tensor, Mapping) else None
    if size not in (None, 0, 1, spread.tensor_parallel):
        yield Finding(
            "FT234",
            "error",
            f"the file shares each layer among {size} GPUs, the recipe among "
            f"{spread.tensor_parallel or 1}: the batch would be another one",
            field=field,
            fix=f"--set distributed.tensor_parallel={size}, or remove it from the file",
        )


def _contradictions(recipe: Recipe, document: Mapping[str, Any], field: str) -> Iterator[Finding]:
    """What a run changes in its copy; a file of the native block it leaves alone."""
    dtype = Target().dtype(recipe.model.dtype)
    ours = field == "distributed.deepspeed_file"
    for change in own_file.patched(recipe, document, dtype)[1]:
        precision = change.key.endswith(".enabled")
        open_yet = recipe.model.dtype == "auto" and (ours or change.before in (None, "auto"))
        if precision and open_yet:
            continue  # decided by the machine that trains, and said there
        if ours:
            yield Finding("FT234", "note", f"the run's copy of the file: {change}", field=field)
        elif level := _level(change):
            yield Finding(
                "FT234",
                level,
                f"the file contradicts the recipe: {change}",
                field=field,
                fix="name it in distributed.deepspeed_file: a run then brings its copy in line",
            )


def _level(change: own_file.Change) -> Level | None:
    """How bad a contradiction is that nobody puts right; None: what is missing does no harm."""
    if "gather" in change.key or (change.key.endswith(".enabled") and change.before is not None):
        return "error"
    named = change.before not in (None, "auto") and change.key != "train_batch_size"
    return "warning" if named or change.key == "zero_force_ds_cpu_optimizer" else None
