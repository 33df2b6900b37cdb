"""The stages as commands of their own, on a recipe or on a run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from orchestrator.plan import StageName

HELP: "dict[StageName, str]" = {
    "preprocess": "Tokenize and mask the data, once.",
    "train": "Train a recipe, or go on training a run.",
    "merge": "Merge the LoRA into its base and verify it.",
    "export": "Make a clean model folder, and push it.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `ft`."""
    for name, text in HELP.items():
        app.command(name, help=text)(_stage_command(name))


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
        walk(stage, target, overrides, backend, smoke=smoke, install=not no_install,
             offline=offline, as_json=as_json)  # fmt: skip

    return command


def walk(
    stage: "StageName",
    target: str,
    overrides: list[str] | None,
    backend: str | None,
    *,
    smoke: bool,
    install: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Do the stages up to `stage` of a run, or of a new run of a recipe."""
    run = run_named(target)
    if run is not None:
        no_changes(overrides, backend, smoke)
        pipeline = reopen(run, install=install, offline=offline)
    else:
        resolved = resolve(load(target, overrides, backend), smoke=smoke, offline=offline)
        pipeline = start(resolved, install=install)
    _has_stage(pipeline, stage)
    anew = run is not None and stage in ("merge", "export")
    pipeline.run(until=stage, again=stage if anew else None)
    outcome(pipeline, as_json=as_json)


def no_changes(overrides: list[str] | None, backend: str | None, smoke: bool) -> None:
    """Refuse options that only a recipe takes.

    Raises:
        UsageError: there are some.
    """
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
