"""`ft inspect-tokens`: which tokens are trained, and whether that is right."""

from typing import TYPE_CHECKING, Annotated

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
    reopen,
    resolve,
    run_named,
    start,
)
from orchestrator.cli.comparing import compare_backends
from orchestrator.cli.stages import no_changes

if TYPE_CHECKING:
    from orchestrator.labels.facts import Subject
    from orchestrator.labels.judge import Report


def register(app: typer.Typer) -> None:
    """Add the command to `ft`."""
    app.command("inspect-tokens")(inspect_tokens)


def inspect_tokens(
    target: RecipeOrRun,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows to show: numbers, ranges, shortest, median, longest, least, most, worst."
        ),
    ] = None,
    grep: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Show rows that contain a text.")
    ] = None,
    only_failing: Annotated[
        bool, typer.Option("--only-failing", help="Show rows that a finding is about.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Every token as token(label, id).")] = False,
    lengths: Annotated[
        bool, typer.Option("--lengths", help="What each sequence length would cut and pad.")
    ] = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Compare two backends row by row; --rows is how many to explain."
        ),
    ] = None,
    fail_on: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Exit 7 from this level on: warning, error.")
    ] = None,
    overrides: Overrides = None,
    backend: BackendName = None,
    smoke: SmokeFlag = False,
    no_install: NoInstall = False,
    offline: OfflineFlag = False,
    as_json: AsJson = False,
) -> None:
    """Show which tokens are trained, and judge them.

    Reads the backend's own prepared data; prepares it first if it is not there. Exit code 7: the
    verdict forbids training.
    """
    from orchestrator import ui
    from orchestrator.errors import Exit, UsageError
    from orchestrator.labels.judge import judge

    json_mode(as_json)
    if compare is not None:
        compare_backends(
            target, compare, rows or "", overrides,
            smoke=smoke, install=not no_install, offline=offline, as_json=as_json,
        )  # fmt: skip
        return
    if fail_on not in (None, "warning", "error"):
        raise UsageError(f"unknown level {fail_on!r}", hint="--fail-on warning, or error")
    subject = _subject(target, overrides, backend, smoke, no_install, offline)
    report = judge(subject)
    chosen = _chosen(report, rows, grep, only_failing)
    if html:
        _write_page(report, subject, html)
    if as_json:
        ui.emit(_document(report, subject, chosen, lengths))
    elif lengths:
        from orchestrator.labels.lengths import measure, show

        show(measure(report))
    elif not html or rows or grep or only_failing:
        from orchestrator.labels import terminal

        terminal.show(report, chosen, ids=ids, whole=bool(rows or grep))
    else:
        from orchestrator.labels import terminal

        terminal.show_verdict(report)
    forbidden = report.failures(fail_on)
    if forbidden:
        ui.note(f"{len(forbidden)} finding(s) forbid training", style="bold red")
        raise typer.Exit(int(Exit.LABELS))


def _chosen(report: "Report", rows: str | None, grep: str | None, only_failing: bool) -> list[int]:
    """The rows that are asked for; without a wish the telling ones."""
    from orchestrator import ui
    from orchestrator.labels.picking import TELLING, containing, failing, pick_rows

    if sum(map(bool, (rows, grep, only_failing))) > 1:
        from orchestrator.errors import UsageError

        raise UsageError("--rows, --grep and --only-failing exclude each other")
    if grep or only_failing:
        chosen, count = containing(grep, report) if grep else failing(report)
        what = f"contain {grep!r}" if grep else "have a finding"
        more = f", the first {len(chosen)} are shown" if count > len(chosen) else ""
        ui.note(f"{count:,} of {report.facts.rows:,} rows {what}{more}")
        return chosen
    return pick_rows(rows or TELLING, report)


def _document(
    report: "Report", subject: "Subject", chosen: list[int], lengths: bool
) -> dict[str, object]:
    from orchestrator.labels.document import document

    made = document(report, subject, chosen)
    if lengths:
        from orchestrator.labels.lengths import measure

        made["length_table"] = measure(report).as_dict()
    return made


def _write_page(report: "Report", subject: "Subject", target: str) -> None:
    from pathlib import Path

    from orchestrator import ui
    from orchestrator.files import write_atomic
    from orchestrator.labels.document import document, sample
    from orchestrator.labels.html import page

    rows = sample(report)
    write_atomic(Path(target), page(document(report, subject, rows, compact=True)))
    shown = f"{len(rows):,} of {report.facts.rows:,} rows" if len(rows) < report.facts.rows else ""
    ui.note(f"wrote {target}" + (f" with {shown}" if shown else ""))


def _subject(
    target: str,
    overrides: list[str] | None,
    backend: str | None,
    smoke: bool,
    no_install: bool,
    offline: bool,
) -> "Subject":
    """The prepared data of a recipe or a run; made now if it is not there yet."""
    from dataclasses import asdict
    from pathlib import Path

    from orchestrator import stages
    from orchestrator.plan import Context

    run = run_named(target)
    if run is not None:
        no_changes(overrides, backend, smoke)
        pipeline = reopen(run, install=not no_install, offline=offline)
    else:
        resolved = resolve(load(target, overrides, backend), smoke=smoke, offline=offline)
        if stages.prepared_facts(Path(resolved.facts["prepared"])) is not None:
            context = Context(root="", python="", probe="", **resolved.facts)
            return stages.subject(resolved.recipe, asdict(context))
        pipeline = start(resolved, install=not no_install)
    pipeline.run(until="preprocess")
    return stages.subject(pipeline.plan.recipe, pipeline.plan.context.as_dict())
