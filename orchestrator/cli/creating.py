"""`ft recipe new`: a recipe from a few answers, or a copy of another one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import BackendName, Overrides, complete_recipe

DEFAULT = "mistral-qlora"


def new(
    name: Annotated[str, typer.Argument(help="Name of the new recipe.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Base model: hub id or folder.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data: file, folder or hub id.")
    ] = None,
    data_format: Annotated[
        str | None,
        typer.Option("--format", help="What a row looks like; a local file shows it itself."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="lora, qlora, full or dpo.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--from", help="Recipe to copy instead.", autocompletion=complete_recipe),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; default recipes/NAME.yaml.")
    ] = None,
    overrides: Overrides = None,
    backend: BackendName = None,
) -> None:
    """Write a new recipe, with comments: from --base and --data, from questions, or from another.

    With --from, and without any of them where nobody can be asked, it is a copy of a recipe.
    """
    from orchestrator import ui
    from orchestrator.errors import UsageError
    from orchestrator.recipe.composing import Answers, compose
    from orchestrator.recipe.writing import copy_of, write_new

    target = out or Path("recipes") / f"{name}.yaml"
    if target.exists():
        raise UsageError(f"{target} exists", hint="choose another name, or --out")
    given = [value for value in (base, data, data_format, method) if value]
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if template and given:
        raise UsageError(
            "--from copies a recipe, --base, --data, --format and --method make one",
            hint="--from with --set model.base=...",
        )
    if template or not (given or terminal):
        text = copy_of(name, template or DEFAULT, overrides or [], backend)
        write_new(target, text)
    else:
        if terminal:
            base, data, method = _asked(base, data, method)
        if not (base and data):
            raise UsageError("a recipe needs a base and data", hint="--base MODEL --data FILE")
        answers = Answers(name, base, data, data_format or "", method or "lora", backend or "")
        beside = target.parent.absolute()
        write_new(target, compose(answers, beside), overrides or [])
    ui.say(f"wrote {target}; check it with: ft recipe validate {target}")


def _asked(base: str | None, data: str | None, method: str | None) -> tuple[str, str, str]:
    """The answers that are still missing, asked on the terminal."""
    from orchestrator.recipe.composing import METHODS

    base = base or typer.prompt("base model (hub id or folder)", err=True)
    data = data or typer.prompt("data (file, folder or hub id)", err=True)
    if not method:
        for word, meaning in METHODS.items():
            typer.echo(f"  {word:6} {meaning}", err=True)
        method = typer.prompt("method", default="lora", err=True)
    return str(base), str(data), str(method)
