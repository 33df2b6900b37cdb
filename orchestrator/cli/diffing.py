"""`ft recipe diff`: two recipes, or two runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import AsJson, complete_recipe, json_mode, load, run_named

if TYPE_CHECKING:
    from orchestrator.recipe.compare import Side

Compared = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|RUN",
        help="A recipe's name or file, or a run.",
        autocompletion=complete_recipe,
    ),
]


def diff(left: Compared, right: Compared, as_json: AsJson = False) -> None:
    """Compare two recipes, or two runs, field by field."""
    from rich.text import Text

    from orchestrator import ui
    from orchestrator.recipe.compare import differences

    json_mode(as_json)
    sides = (_side(left), _side(right))
    found = differences(*sides)
    if as_json:
        ui.emit(
            {
                "left": sides[0].name,
                "right": sides[1].name,
                "differences": [entry._asdict() for entry in found],
            }
        )
        return
    if not found:
        ui.say(f"{sides[0].name} and {sides[1].name} are the same")
        return
    rows = [
        (
            Text(entry.field, overflow="fold"),
            Text(_shown(entry.left), style="red", overflow="fold"),
            Text(_shown(entry.right), style="green", overflow="fold"),
        )
        for entry in found
    ]
    ui.table(("field", sides[0].name, sides[1].name), rows)


def _side(name: str) -> "Side":
    """A run of that name, else a recipe.

    Raises:
        UsageError: it is neither.
    """
    from orchestrator.recipe.compare import of_recipe, of_run

    folder = run_named(name)
    return of_run(folder) if folder else of_recipe(name, load(name, None, None).recipe)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
