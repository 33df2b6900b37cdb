"""`ft recipe import`: a backend's own configuration as a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import AsJson, json_mode

if TYPE_CHECKING:
    from orchestrator.importing.importer import Imported


def import_recipes(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Configurations.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File to write, or a folder; default: print the recipe."),
    ] = None,
    dataset_info: Annotated[
        Path | None,
        typer.Option("--dataset-info", help="LLaMA-Factory's list of the data sets named."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Unknown keys are errors (exit code 3).")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only compare what it renders to with the source."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a recipe of an axolotl or LLaMA-Factory configuration; nothing in it is lost."""
    from orchestrator import ui
    from orchestrator.errors import Exit, UsageError
    from orchestrator.importing.importer import import_file

    json_mode(as_json)
    folder = to is not None and (to.is_dir() or len(files) > 1 or not to.suffix)
    if to and not folder and to.exists() and not check:
        raise UsageError(f"{to} exists", hint="choose another name for --to")
    info = _read_info(dataset_info) if dataset_info else None
    reports, code = [], Exit.OK
    for file in files:
        imported = import_file(file, info=info, strict=strict)
        target = None
        if imported.recipe and not check and to and not _refused(imported, strict):
            target = to / f"{imported.recipe.name}.yaml" if folder else to
            _write(target, imported.text)
        _show(imported, target, check=check, as_json=as_json)
        reports.append(_report(imported, target))
        code = max(code, _code(imported, strict))
    if as_json:
        ui.emit({"ok": code == Exit.OK, "files": reports})
    if code:
        raise typer.Exit(int(code))


def _read_info(file: Path) -> dict[str, Any]:
    from orchestrator.errors import UsageError
    from orchestrator.files import read_json

    if not file.is_file():
        raise UsageError(f"there is no file {file}", hint="--dataset-info data/dataset_info.json")
    info = read_json(file)
    if not isinstance(info, dict):
        raise UsageError(f"{file} is no dataset_info.json", hint="it maps names to entries")
    return info


def _write(target: Path, text: str) -> None:
    from orchestrator.errors import UsageError
    from orchestrator.files import write_atomic

    if target.exists():
        raise UsageError(f"{target} exists", hint="choose another place for --to")
    write_atomic(target, text)


def _refused(imported: "Imported", strict: bool) -> bool:
    return strict and any(f.code == "FT511" and f.level == "error" for f in imported.findings)


def _code(imported: "Imported", strict: bool) -> Any:
    """2: no recipe came of it; 3: a difference, or an unknown key with --strict."""
    from orchestrator.errors import Exit

    if imported.recipe is None:
        return Exit.USAGE
    return Exit.CHECK if imported.differences or _refused(imported, strict) else Exit.OK


def _show(imported: "Imported", target: Path | None, *, check: bool, as_json: bool) -> None:
    from orchestrator import ui

    ui.show_findings(imported.findings)
    for difference in imported.differences:
        ui.note(f"{imported.file}: {difference.key}: {difference.source!r} would become "
                f"{difference.rendered!r}", style="red")  # fmt: skip
    if imported.recipe is None or as_json:
        return
    if not check and target is None:
        ui.raw(imported.text)
    same = "renders to the same" if not imported.differences else "does not render to the same"
    ui.note(
        f"{imported.file}: {imported.kind.label}; {same} configuration; "
        f"{imported.neutral} of {imported.keys} keys ({imported.share:.0%}) in neutral fields"
    )
    if imported.native:
        ui.note(f"  native: {', '.join(sorted(set(imported.native)))}", style="dim")
    if target:
        ui.say(f"wrote {target}; check it with: ft recipe validate {target}")


def _report(imported: "Imported", target: Path | None) -> dict[str, Any]:
    return {
        "file": str(imported.file),
        "kind": imported.kind.kind,
        "recipe": imported.text if imported.recipe else None,
        "written": str(target) if target else None,
        "exact": imported.recipe is not None and not imported.differences,
        "differences": [
            {"key": d.key, "source": d.source, "rendered": d.rendered} for d in imported.differences
        ],
        "keys": imported.keys,
        "neutral": imported.neutral,
        "share": round(imported.share, 4),
        "native": sorted(set(imported.native)),
        "findings": [finding.as_dict() for finding in imported.findings],
    }
