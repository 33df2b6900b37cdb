"""What each stage does around its process, and the judgement of what it made.

A stage returns facts; `facts["summary"]` is the line that people see. The process itself is
started by the pipeline, which hands in `run(stage, display, request)`.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator import artifacts
from orchestrator.checkpoints import checkpoints, flaw
from orchestrator.errors import ArtifactError, BackendError, LabelError, LaunchError, Suspended
from orchestrator.exporting import make_export
from orchestrator.fetching import fetch_all
from orchestrator.files import read_json, write_json
from orchestrator.labels.facts import Subject
from orchestrator.labels.judge import Report, judge
from orchestrator.locks import shared_folder
from orchestrator.memory import accuracy
from orchestrator.metrics import read_training
from orchestrator.plan import Plan, Stage
from orchestrator.progress import StageDisplay
from orchestrator.recipe.models import Recipe
from orchestrator.runs.record import Record

Run = Callable[..., dict[str, Any]]
FINISHED = "ft-prepared.json"


def fetch(plan: Plan, display: StageDisplay, run: Run) -> dict[str, Any]:
    """Have the model and the data; for a smoke run make the twin, once per family and release."""
    context = plan.context
    stage = _stage(plan, "fetch")
    if not context.smoke:
        return fetch_all(plan.recipe, context, display.say)
    directory = Path(context.smoke["directory"])
    with shared_folder(directory, lambda: display.say("another ft makes it, waiting")):
        known = read_json(directory / FINISHED)
        if isinstance(known, dict):
            return {**known, "summary": f"tiny {context.smoke['family']} twin, made before"}
        shutil.rmtree(directory, ignore_errors=True)
        made = run(stage, display)
        facts = {"directory": str(directory), "parameters": made.get("parameters")}
        write_json(directory / FINISHED, facts)
    return {**facts, "summary": f"tiny {context.smoke['family']} twin made in {directory}"}


def preprocess(plan: Plan, display: StageDisplay, run: Run) -> dict[str, Any]:
    """The backend's own preprocessing, once per fingerprint."""
    folder = Path(plan.context.prepared)
    with shared_folder(folder, lambda: display.say("another ft prepares this data, waiting")):
        known = prepared_facts(folder)
        if known:
            return {**known, "reused": True, "summary": f"{known['rows']:,} rows, prepared before"}
        shutil.rmtree(folder, ignore_errors=True)
        try:
            answer = run(_stage(plan, "preprocess"), display)
            if not answer.get("rows"):
                raise LabelError(
                    "not one row is left after preprocessing",
                    hint="is every row longer than data.sequence_length, or of another format?",
                )
            facts = {
                name: answer.get(name)
                for name in ("dataset", "rows", "validation_rows", "tokenizer", "eos_ids",
                             "pad_id", "bos_id", "versions")
            }  # fmt: skip
            write_json(folder / FINISHED, facts)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return {**facts, "reused": False, "summary": f"{facts['rows']:,} rows in {folder}"}


def prepared_facts(folder: Path) -> dict[str, Any] | None:
    """What preprocessing left in `folder`, if it finished and its files are still there."""
    facts = read_json(folder / FINISHED)
    if not isinstance(facts, dict):
        return None
    train = (facts.get("dataset") or {}).get("train")
    complete = train and (Path(train) / "state.json").is_file()
    return facts if complete and (Path(facts["tokenizer"]) / "tokenizer.json").is_file() else None


def has_weights(folder: Path) -> bool:
    """Whether a stage's output is still there."""
    return any(folder.glob("*.safetensors"))


def _needed_facts(folder: str) -> dict[str, Any]:
    facts = prepared_facts(Path(folder))
    if facts is None:
        raise LabelError(f"there is no prepared data in {folder}", hint="run `ft preprocess`")
    return facts


def subject(recipe: Recipe, context: Mapping[str, Any]) -> Subject:
    """What the label report looks at. `context` has the fields of `plan.Context`.

    Raises:
        LabelError: the prepared data is not there (any more).
    """
    facts = _needed_facts(context["prepared"])
    validation = facts["dataset"].get("validation")
    return Subject(
        recipe,
        Path(facts["dataset"]["train"]),
        Path(facts["tokenizer"]),
        Path(validation) if validation else None,
        tuple(context["sources"]),
        tuple(context["validation_sources"]),
        context["base"] or _cached_base(recipe),
    )


def _cached_base(recipe: Recipe) -> str:
    """Where the base's small files are in the hub's cache; empty if they are not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(recipe.model.base, "config.json", revision=recipe.model.revision)
    return str(Path(found).parent) if isinstance(found, str) else ""


def inspect(plan: Plan, display: StageDisplay) -> dict[str, Any]:
    """The gate: the label report must find nothing that forbids training.

    Raises:
        LabelError: it does.
    """
    found = judge(subject(plan.recipe, plan.context.as_dict()))
    forbidden = found.failures()
    for finding in found.findings:
        if finding not in forbidden and finding.level != "note":
            display.tell(f"{finding.level}[{finding.code}]: {finding.message}")
    judge_labels(found)
    facts = found.facts
    summary = (
        f"{facts.trained_share:.0%} of {facts.tokens:,} tokens trained, "
        f"stop {', '.join(found.stop_tokens) or 'none'}"
    )
    findings = [judged.as_dict() for judged in found.judged]
    return {**found.summary(), "findings": findings, "summary": summary}


def judge_labels(found: Report) -> None:
    """Raise what the report forbids.

    Raises:
        LabelError: the labels are wrong in a way that the recipe does not allow.
    """
    forbidden = found.failures()
    if forbidden:
        raise LabelError(
            "; ".join(f"[{finding.code}] {finding.message}" for finding in forbidden),
            hint="; ".join(dict.fromkeys(finding.fix for finding in forbidden if finding.fix)),
        )


def train(plan: Plan, display: StageDisplay, run: Run) -> dict[str, Any]:
    """Train, from the last whole checkpoint if the run was started before."""
    output, stage = plan.training_output, _stage(plan, "train")
    resume = _last_checkpoint(output, display)
    data = _needed_facts(plan.context.prepared)["dataset"]["train"]
    before = _trained_before(plan)
    if before is None:
        plan.layout.result("train").unlink(missing_ok=True)
        plan.layout.stop.unlink(missing_ok=True)  # of a training that was killed meanwhile
        if resume:
            display.tell(f"resume from {resume.name}")
    request = {
        **(stage.request or {}),
        "resume": str(resume) if resume else None,
        "dataset": data,  # the probe refuses to train on anything else
    }
    answer = before or run(stage, display, request)
    _suspended(plan, answer)
    _judge_training(plan, answer)
    made = _made(plan)
    facts: dict[str, Any] = {**answer, "artifact": made, "resumed_from": str(resume or "") or None}
    facts["memory"] = accuracy.beside(plan, answer.get("peak_memory"))
    training = read_training(plan.layout.events)
    change = training.change()
    facts["loss"] = {
        "first": change[0] if change else training.loss,
        "last": change[1] if change else training.loss,
        "eval": training.eval_loss,
    }
    facts["summary"] = _training_summary(plan, facts, change)
    return facts


def met(event: Mapping[str, Any]) -> str:
    """The line about the look at all processes before a training."""
    hosts = event.get("hosts") or []
    return f"{event.get('ranks')} processes on {', '.join(hosts)} found each other and add up"


def _made(plan: Plan) -> dict[str, Any]:
    """What training wrote, judged.

    Raises:
        ArtifactError: it is not whole.
    """
    if plan.recipe.adapter.type == "lora":
        return artifacts.check_adapter(plan.training_output, plan.recipe.adapter.rank)
    return artifacts.check_model(plan.training_output)


def _trained_before(plan: Plan) -> dict[str, Any] | None:
    """What a training answered that came to its end, if only the marker is missing.

    `ft` was killed, or the disk was full, between the two: days of work must not be done again.
    The end may be an early one, but not one that was asked for.
    """
    answer = read_json(plan.layout.result("train"))
    if not isinstance(answer, dict) or "error" in answer:
        return None
    step, wanted = answer.get("global_step") or 0, answer.get("max_steps") or 0
    try:
        _judge_training(plan, answer)
        _made(plan)
    except (ArtifactError, BackendError):
        return None
    return answer if step >= wanted or not plan.layout.stop.exists() else None


def _suspended(plan: Plan, answer: Mapping[str, Any]) -> None:
    """Whether training ended because it was asked to.

    Raises:
        Suspended: it did, before its last step.
    """
    step, wanted = answer.get("global_step") or 0, answer.get("max_steps") or 0
    if plan.layout.stop.exists() and step < wanted:
        raise Suspended(
            f"training saved a checkpoint at step {step} of {wanted} and ended, as asked",
            hint=f"it goes on with: ft recipe run --resume {plan.layout.root}",
        )


def _training_summary(
    plan: Plan, facts: Mapping[str, Any], change: tuple[float, float] | None
) -> str:
    steps = f"{facts.get('global_step')} steps"
    if change is None:
        return steps
    first, last = change
    if plan.context.smoke:
        if last >= first:
            raise ArtifactError(
                f"the loss did not fall: {first:.3f} at the start, {last:.3f} at the end",
                hint="the smoke data is learnable, so labels, learning rate or template are off",
            )
        return f"{steps}, the loss fell from {first:.3f} to {last:.3f}"
    return f"{steps}, loss {first:.3f} -> {last:.3f}"


def _judge_training(plan: Plan, answer: Mapping[str, Any]) -> None:
    """An exit code of 0 is not enough: the steps must be done, by all processes together.

    Raises:
        BackendError: they are not.
    """
    processes = plan.context.target.processes
    world = answer.get("world_size")
    if world and world != processes:
        raise BackendError(
            f"training ran with world size {world} instead of {processes}",
            hint="the processes did not find each other; see the log",
        )
    step, wanted = answer.get("global_step") or 0, answer.get("max_steps") or 0
    early = plan.recipe.training.early_stopping is not None
    if step < 1 or (step < wanted and not early):
        raise BackendError(
            f"training ended at step {step} of {wanted}", hint="go on with ft recipe run --resume"
        )


def _last_checkpoint(output: Path, display: StageDisplay) -> Path | None:
    """The checkpoint to go on from. Those cut short are removed, since a backend that looks itself
    would take one for the last.

    Raises:
        LaunchError: one cannot be read, or one that is cut short cannot be removed.
    """
    whole = None
    for folder in checkpoints(output):
        broken = flaw(folder)
        if not broken:
            whole = folder
            continue
        display.tell(f"{folder.name} is removed: {broken}")
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise LaunchError(
                f"cannot remove {folder}, which is cut short",
                hint="remove or rename it; then --resume the run",
            )
    return whole


def merge(plan: Plan, display: StageDisplay, run: Run) -> dict[str, Any]:
    """Merge, and compare the merged model with base plus adapter.

    Raises:
        ArtifactError: their logits differ by more than the arithmetic explains.
    """
    output = plan.layout.merged
    shutil.rmtree(output, ignore_errors=True)
    answer = run(_stage(plan, "merge"), display)
    made = artifacts.check_model(output)
    difference, tolerance = answer.get("max_abs_diff"), answer.get("tolerance")
    if not answer.get("passed"):
        raise ArtifactError(
            f"the merged model is not base plus adapter: logits differ by {difference} "
            f"(tolerance {tolerance})",
            hint=f"do not use {output}; see {plan.layout.log('merge')}",
        )
    return {
        **answer,
        "artifact": made,
        "summary": f"logits equal base + adapter within {difference:.1e}",
    }


def export(plan: Plan, record: Record, display: StageDisplay) -> dict[str, Any]:
    """The clean folder, and the push if the recipe asks for one."""
    inspected = read_json(plan.layout.marker("inspect")) or {}
    return make_export(plan, record, inspected.get("facts", {}), display.say)


def _stage(plan: Plan, name: str) -> Stage:
    stage = plan.stage(name)
    assert stage is not None
    return stage
