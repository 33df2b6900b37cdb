"""Train, and after an out-of-memory error train again a step higher, if the recipe asks for it.

A step is taken in this order, so that a kill between any two leaves a run that can be resumed:
keep what the attempt had, put aside the checkpoints that the next one cannot read, write the recipe
(from which a resumed run renders its files), then the files.
"""

import dataclasses
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator import hardware, stages, ui, yaml_out
from orchestrator.checkpoints import checkpoints, complete_checkpoints
from orchestrator.errors import LaunchError
from orchestrator.files import write_atomic
from orchestrator.memory import accuracy, planning
from orchestrator.oom import same
from orchestrator.oom.advice import advice
from orchestrator.oom.ladder import Step, climb
from orchestrator.oom.shortage import OutOfMemory, Shortage, shown
from orchestrator.plan import Plan, build
from orchestrator.progress import StageDisplay
from orchestrator.recipe import compare
from orchestrator.recipe.load import load
from orchestrator.recipe.models import Recipe
from orchestrator.runs.record import Record

Attempt = dict[str, Any]


def train(
    plan: Plan, record: Record, display: StageDisplay, run: stages.Run
) -> tuple[Plan, dict[str, Any]]:
    """Train; the plan that it was done with, and the stage's facts.

    Raises:
        OutOfMemory: the recipe says to stop, or nothing is left to try.
    """
    while True:
        before = complete_checkpoints(plan.training_output)
        attempt: Attempt = {"resumed_from": str(before[-1]) if before else None}
        begin = time.monotonic()
        try:
            facts = stages.train(plan, display, run)
        except OutOfMemory as error:
            attempt["seconds"] = round(time.monotonic() - begin, 3)
            plan = _again(plan, record, attempt, error)
            continue
        if record.document.get("attempts"):
            seconds = round(time.monotonic() - begin, 3)
            _note(plan, record, {**attempt, "reason": None, "seconds": seconds})
        return plan, facts


def _again(plan: Plan, record: Record, attempt: Attempt, error: OutOfMemory) -> Plan:
    """Note the failed attempt and make the plan of the next one.

    Raises:
        OutOfMemory: there is none.
    """
    shortage = error.shortage
    predicted = (accuracy.beside(plan, None) or {}).get("predicted", {}).get("total")
    failed = {"reason": shortage.text, **shortage.as_dict(), "predicted": predicted}
    _note(plan, record, {**attempt, **failed})
    step = _step(plan, shortage) if plan.recipe.training.on_oom == "retry" else None
    if step is None:
        raise _last(plan, record, error, predicted)
    number = len(record.document["attempts"])
    return _take(plan, record, step, shortage, number)


def _note(plan: Plan, record: Record, values: Attempt) -> None:
    """Complete the attempt that a step has begun, or begin and complete one."""
    attempts = list(record.document.get("attempts") or [])
    if not attempts or "seconds" in attempts[-1]:
        attempts.append(_unnoted(plan, len(attempts)))
    attempts[-1] = {**attempts[-1], **values}
    record.update(attempts=attempts)


def _unnoted(plan: Plan, number: int) -> Attempt:
    """The begin of an attempt whose step `ft` did not live to note: read off the kept recipe."""
    kept = plan.layout.attempt(number)
    if not (kept / "recipe.yaml").is_file():
        return {"change": []}
    before = compare.of_recipe("", load(kept / "recipe.yaml").recipe)
    changes = {
        found.field: found.right
        for found in compare.differences(before, compare.of_recipe("", plan.recipe))
        if found.field != "training.on_oom"
    }
    aside = [f"earlier checkpoints are in {kept}"] if (kept / "checkpoints").is_dir() else []
    return {"change": list(Step(plan.recipe, changes, "").settings), "notes": aside}


def _step(plan: Plan, shortage: Shortage) -> Step | None:
    def fits(recipe: Recipe) -> bool | None:
        if shortage.kind != "gpu" or plan.context.target.device != "cuda":
            return None
        here = planning.seen(hardware.gpus())
        here = here and dataclasses.replace(here, nodes=max(1, plan.context.nodes))
        memory = planning.of_plan(dataclasses.replace(plan, recipe=recipe), here)
        return memory.plan.own.fits if memory else None

    context = plan.context
    return climb(plan.recipe, shortage.kind, context.target, context.nodes or 1, fits=fits)


def _take(plan: Plan, record: Record, step: Step, shortage: Shortage, number: int) -> Plan:
    """Change the run as the step says; it goes on with the plan that is returned.

    Raises:
        LaunchError: what the attempt had cannot be kept, so nothing is changed.
    """
    layout, processes = plan.layout, plan.context.target.processes
    fresh = same.unreadable(plan.recipe, step.recipe)
    notes = list(same.differences(plan.recipe, step.recipe, processes))
    kept = layout.attempt(number)
    try:
        shutil.copytree(layout.rendered, kept / "rendered", dirs_exist_ok=True)
        shutil.copyfile(layout.recipe, kept / "recipe.yaml")
        notes += _put_aside(plan.training_output, kept / "checkpoints", fresh) if fresh else []
    except OSError as error:
        raise LaunchError(
            f"cannot keep the files of an attempt in {kept}: {error}",
            hint=f"make room, then: ft recipe run --resume {layout.root}",
        ) from error
    planned = build(step.recipe, plan.context)
    write_atomic(layout.recipe, yaml_out.dump(step.recipe.model_dump(mode="json")))
    for file in planned.files:
        write_atomic(layout.rendered / file.name, file.text)
    changed = {"change": list(step.settings), "why": step.reason, "notes": notes}
    record.update(
        attempts=[*record.document["attempts"], changed],
        commands={stage.name: list(stage.argv) for stage in planned.stages if stage.argv},
    )
    record.event("out_of_memory", kind=shortage.kind, change=changed["change"])
    _tell(shortage, step, notes)
    return planned


def _tell(shortage: Shortage, step: Step, notes: list[str]) -> None:
    ui.note(f"train: {shortage.text}", style="yellow")
    ui.note(f"train: again with {' '.join(step.settings)}: {step.reason}", style="bold")
    for note in notes:
        ui.note(f"  {note}", style="dim")


def _put_aside(output: Path, folder: Path, why: str) -> list[str]:
    """Move checkpoints out of the way of a resume; nothing is deleted."""
    found = checkpoints(output)
    if not found:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in found:
        checkpoint.replace(folder / checkpoint.name)
    return [f"it starts from the beginning: {why}; the checkpoints are in {folder}"]


def _last(plan: Plan, record: Record, error: OutOfMemory, predicted: int | None) -> OutOfMemory:
    """The one message of a training that memory has ended: what was tried, what is left to do."""
    recipe, context = plan.recipe, plan.context
    tried = [entry["change"] for entry in record.document["attempts"] if entry["change"]]
    message = error.message
    if predicted:
        message += f"; the memory plan says {shown(predicted)}"
    if tried:
        message += f"; also after {len(tried)} changes: " + ", then ".join(map(" ".join, tried))
    kind, target = error.shortage.kind, context.target
    ways = advice(recipe, kind, target, context.nodes or 1)
    if recipe.training.on_oom == "stop" and _step(plan, error.shortage):
        ways += f"\nor let ft do it: ft recipe run --resume {plan.layout.root} --on-oom retry"
    return OutOfMemory(message, error.shortage, hint=f"{ways}\n{error.hint}", detail=error.detail)


def described(attempt: Mapping[str, Any]) -> tuple[str, str, str]:
    """An attempt in three columns: what was changed for it, how it ended, its seconds."""
    change = " ".join(attempt.get("change") or ()) or "no change"
    notes = [*attempt.get("notes", ())]
    resumed = attempt.get("resumed_from")
    notes += [f"from {Path(resumed).name}"] if resumed else []
    if "seconds" not in attempt:
        return "; ".join([change, *notes]), "", ""
    end = attempt.get("reason") or "done"
    return "; ".join([change, *notes]), end, f"{attempt['seconds']:.1f}"
