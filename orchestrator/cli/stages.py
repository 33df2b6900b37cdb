"""The stages as commands of their own, on a recipe or on a run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    AsJson,
    BackendName,
    NoInstall,
    OfflineFlag,
    Overrides,
    RecipeOrRun,
    SmokeFlag,
    json_mode,
    load,
    outcome,
    reopen,
    resolve,
    run_named,
    start,
)
from orchestrator.cli.comparing import compare_backends

if TYPE_CHECKING:
    from orchestrator.plan import StageName

HELP: "dict[StageName, str]" = {
    "fetch": "Download the model and the data.",
    "preprocess": "Tokenize and mask the data, once.",
    "train": "Train a recipe, or go on training a run.",
    "merge": "Merge the LoRA into its base and verify it.",
    "export": "Make a clean model folder, and push it.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `ft`."""
    for name, text in HELP.items():
        app.command(name, help=text)(_stage_command(name))
    app.command("inspect-tokens")(inspect_tokens)


def _stage_command(stage: "StageName") -> Callable[..., Any]:
    def command(
        target: RecipeOrRun,
        overrides: Overrides = None,
        backend: BackendName = None,
        smoke: SmokeFlag = False,
        no_install: NoInstall = False,
        offline: OfflineFlag = False,
        as_json: AsJson = False,
    ) -> None:
        json_mode(as_json)
        run = run_named(target)
        if run is not None:
            _no_changes(overrides, backend, smoke)
            pipeline = reopen(run, install=not no_install, offline=offline)
        else:
            resolved = resolve(load(target, overrides, backend), smoke=smoke, offline=offline)
            pipeline = start(resolved, install=not no_install)
        _has_stage(pipeline, stage)
        anew = run is not None and stage in ("merge", "export")
        pipeline.run(until=stage, again=stage if anew else None)
        outcome(pipeline, as_json=as_json)

    return command


def _no_changes(overrides: list[str] | None, backend: str | None, smoke: bool) -> None:
    from orchestrator.errors import UsageError

    if overrides or backend or smoke:
        raise UsageError(
            "a run keeps its own recipe", hint="start a new run from the recipe to change it"
        )


def _has_stage(pipeline: Any, stage: str) -> None:
    from orchestrator.errors import UsageError

    if pipeline.plan.stage(stage) is None:
        raise UsageError(
            f"this recipe has no {stage} stage",
            hint="see output.merge, output.export and adapter.type",
        )


def inspect_tokens(
    target: RecipeOrRun,
    rows: Annotated[
        str,
        typer.Option(help="Rows to show: numbers, ranges, shortest, median, longest, least, most."),
    ] = "shortest,median,longest",
    ids: Annotated[bool, typer.Option("--ids", help="Every token as token(label, id).")] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Compare two backends row by row; --rows is how many to explain."
        ),
    ] = None,
    overrides: Overrides = None,
    backend: BackendName = None,
    smoke: SmokeFlag = False,
    no_install: NoInstall = False,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Show which tokens are trained.

    Reads the backend's own prepared data; prepares it first if it is not there.
    """
    from orchestrator import stages, ui
    from orchestrator.errors import UsageError
    from orchestrator.labels.report import pick_rows, report
    from orchestrator.labels.view import document, show

    json_mode(as_json)
    if compare is not None:
        compare_backends(
            target, compare, rows, overrides,
            smoke=smoke, install=not no_install, offline=offline, as_json=as_json,
        )  # fmt: skip
        return
    prepared = _prepared(target, overrides, backend, smoke, no_install, offline)
    found = report(prepared)
    try:
        chosen = pick_rows(rows, prepared)
    except ValueError as error:
        raise UsageError(str(error), hint="--rows 0,5,longest") from error
    if as_json:
        ui.emit(document(found, prepared, chosen))
    else:
        show(found, prepared, chosen, ids=ids)
    if as_json and found.findings():
        from orchestrator.errors import Exit

        ui.show_findings(found.findings())
        raise typer.Exit(int(Exit.LABELS))
    stages.judge_labels(found)


def _prepared(
    target: str,
    overrides: list[str] | None,
    backend: str | None,
    smoke: bool,
    no_install: bool,
    offline: bool,
) -> Any:
    """The prepared data of a recipe or a run; made now if it is not there yet."""
    from pathlib import Path

    from orchestrator import stages
    from orchestrator.labels.prepared import Prepared

    run = run_named(target)
    if run is not None:
        _no_changes(overrides, backend, smoke)
        pipeline = reopen(run, install=not no_install, offline=offline)
    else:
        resolved = resolve(load(target, overrides, backend), smoke=smoke, offline=offline)
        facts = stages.prepared_facts(Path(resolved.facts["prepared"]))
        if facts is not None:
            return Prepared(Path(facts["dataset"]["train"]), Path(facts["tokenizer"]))
        pipeline = start(resolved, install=not no_install)
    pipeline.run(until="preprocess")
    return stages.open_prepared(pipeline.plan)
