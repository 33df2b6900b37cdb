"""`ft backend`: install, choose, look at and remove the environments of the backends."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orchestrator.environments.doctor import Check
    from orchestrator.environments.environment import Environment

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="The environments that the backends live in."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="axolotl or llamafactory")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="axolotl, llamafactory")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def install(
    names: Names,
    torch: Annotated[
        str, typer.Option(help="Build of torch: auto, cpu, cuda, or another that uv knows (cu126).")
    ] = "auto",
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Make it anew even if it is there.")
    ] = False,
) -> None:
    """Make a backend's environment from ft's hashed lock, and use it from now on."""
    from orchestrator import ui
    from orchestrator.environments import home, locks, registry
    from orchestrator.environments.install import install as make

    for name in names:
        locks.known(name)
    for name in names:
        environment = make(name, torch=torch, reinstall=reinstall)
        ui.say(f"{title(environment)}: {environment.prefix}")
        if home.choices(name).get("prefix") or registry.given_by_variable(name):
            used = registry.resolve(name)
            ui.note(
                f"note: {name} keeps using {used.prefix}; `ft backend use {name} --default`"
                f" (and no {registry.variable(name)}) changes that",
                style="yellow",
            )


@app.command()
def use(
    name: Name,
    prefix: Annotated[
        Path | None, typer.Option(help="A conda or venv prefix that has the backend.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Go back to the environment that ft makes.")
    ] = False,
) -> None:
    """Use an environment that exists already, or ft's own again."""
    from orchestrator import ui
    from orchestrator.environments import home, locks, registry
    from orchestrator.errors import UsageError

    locks.known(name)
    if (prefix is None) == (not default):
        raise UsageError(
            "say which environment to use", hint="give either --prefix PATH or --default"
        )
    if prefix is None:
        home.choose(name, prefix=None)
        ui.say(f"{name}: the environment that ft makes (`ft backend install {name}`)")
        return
    environment = registry.from_prefix(name, prefix)
    home.choose(name, prefix=str(environment.prefix))
    ui.say(f"{title(environment)}: {environment.prefix}")
    if environment.release != locks.RELEASES[name]:
        ui.note(
            f"warning: ft is made for {name} {locks.RELEASES[name]}; other releases may refuse or"
            " ignore what it renders",
            style="yellow",
        )


@app.command("list")
def show(as_json: Json = False) -> None:
    """Show the environments, and which one each backend uses."""
    from rich.text import Text

    from orchestrator import ui
    from orchestrator.environments import locks, registry

    ui.screen.json_mode = as_json
    found = [entry for name in locks.RELEASES for entry in registry.overview(name)]
    if as_json:
        ui.emit({"backends": found})
        return
    columns = ("backend", "release", "torch", "state", "prefix")
    ui.table(
        columns,
        [[Text(str(entry[key] or "-"), overflow="fold") for key in columns] for entry in found],
    )


@app.command()
def doctor(names: Names, as_json: Json = False) -> None:
    """Check whether a backend's environment is fit for work, by importing the backend in it."""
    from orchestrator import ui
    from orchestrator.environments import locks
    from orchestrator.environments.doctor import examine
    from orchestrator.errors import Exit

    ui.screen.json_mode = as_json
    for name in names:
        locks.known(name)
    report: dict[str, list[Check]] = {}
    for name in names:
        report[name] = examine(name)
        if not as_json:
            show_checks(name, report[name])
    failed = any(check.level == "fail" for checks in report.values() for check in checks)
    if as_json:
        document: dict[str, Any] = {
            name: [check.as_dict() for check in checks] for name, checks in report.items()
        }
        ui.emit({"ok": not failed, "backends": document})
    if failed:
        raise typer.Exit(Exit.ENVIRONMENT)


@app.command()
def remove(
    name: Name,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the ones from older locks and other builds.")
    ] = False,
) -> None:
    """Delete what ft installed for a backend; a prefix given to `use` is never touched."""
    from orchestrator import ui
    from orchestrator.environments.install import remove as delete

    for folder in delete(name, everything=everything):
        ui.say(f"removed {folder}")


@app.command()
def capabilities(as_json: Json = False) -> None:
    """Show what each backend can express, concept by concept and field by field."""
    from orchestrator import ui
    from orchestrator.backends.capabilities import table

    ui.screen.json_mode = as_json
    rows = table()
    if as_json:
        ui.emit({"capabilities": rows})
        return
    columns = ("concept", "field", "axolotl", "llamafactory", "note")
    ui.table(columns, [[row[key] for key in columns] for row in rows])


@app.command()
def path(name: Name) -> None:
    """Print the prefix of the environment in use, for scripts."""
    from orchestrator import ui
    from orchestrator.environments.environment import find

    ui.raw(str(find(name).prefix))


def title(environment: "Environment") -> str:
    """An environment in a few words."""
    torch = environment.stamp.get("torch")
    return f"{environment.name} {environment.release}" + (f" with torch {torch}" if torch else "")


def show_checks(name: str, checks: "list[Check]") -> None:
    """The checks of one backend, each remedy below what it cures."""
    from rich.text import Text

    from orchestrator import ui

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    text = Text(name, style="bold")
    for check in checks:
        detail = check.detail.replace("\n", "\n         ")
        text.append("\n  ")
        text.append(f"{check.level:5}", style=styles[check.level])
        text.append(f"  {check.check}: {detail}", style="not bold")
        if check.remedy and check.level != "ok":
            text.append(f"\n         how to fix: {check.remedy}", style="not bold")
    ui.say(text)
