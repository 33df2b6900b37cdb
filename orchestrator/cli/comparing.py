"""`ft inspect-tokens --compare`: one recipe prepared by two backends."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.common import load, run_named, start

if TYPE_CHECKING:
    from orchestrator.labels.compare import Side

SHOWN = 3


def compare_backends(
    target: str,
    backends: str,
    rows: str,
    overrides: list[str] | None,
    *,
    smoke: bool,
    install: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Print what is equal; exit 7 if not everything is.

    Raises:
        UsageError: not two backends, or not a recipe.
    """
    from orchestrator import ui
    from orchestrator.errors import Exit, UsageError
    from orchestrator.labels.compare import compare
    from orchestrator.labels.compare_view import document, show

    names = _two(backends)
    if run_named(target) is not None:
        raise UsageError("a run has one backend", hint="compare a recipe")
    shown = int(rows) if rows.isdigit() else SHOWN
    left, right = (
        _side(target, name, overrides, smoke=smoke, install=install, offline=offline)
        for name in names
    )
    found = compare(left, right, shown)
    recipe = load(target, overrides, names[0]).recipe
    if as_json:
        ui.emit(document(found, recipe))
    else:
        show(found, recipe)
    if not found.equal:
        raise typer.Exit(int(Exit.LABELS))


def _two(backends: str) -> list[str]:
    from orchestrator.backends.registry import BACKENDS
    from orchestrator.errors import UsageError

    names = [name.strip() for name in backends.split(",") if name.strip()]
    if len(set(names)) != 2 or not set(names) <= set(BACKENDS):
        raise UsageError(
            f"--compare takes two backends, not {backends!r}",
            hint=f"--compare {','.join(BACKENDS)}",
        )
    return names


def _side(
    target: str,
    backend: str,
    overrides: list[str] | None,
    *,
    smoke: bool,
    install: bool,
    offline: bool,
) -> "Side":
    """The rows as a backend prepares them; made now if they are not there yet."""
    from orchestrator import stages, ui
    from orchestrator.labels.compare import Side
    from orchestrator.labels.prepared import Prepared
    from orchestrator.setup_run import resolve

    ui.note(f"{backend}:", style="bold")
    with ui.reading() as progress:
        loaded = load(target, overrides, backend)
        resolved = resolve(loaded, smoke_run=smoke, offline=offline, progress=progress)
    ui.show_findings(resolved.findings)
    folder = Path(resolved.facts["prepared"])
    facts = stages.prepared_facts(folder)
    if facts is None:
        start(resolved, install=install).run(until="preprocess")
        facts = stages.prepared_facts(folder)
        assert facts is not None
    data = facts["dataset"]
    folders = [Path(data[name]) for name in ("train", "validation") if data.get(name)]
    prepared = [Prepared(folder, Path(facts["tokenizer"])) for folder in folders]
    return Side(backend, prepared, resolved.recipe.data.sequence_length)
