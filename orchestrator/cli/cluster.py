"""`ft cluster`: list, show, write and check cluster profiles."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import AsJson, json_mode

app = typer.Typer(
    rich_markup_mode=None, help="List, show, write and check clusters.", no_args_is_help=True
)


def complete_cluster(incomplete: str) -> list[str]:
    """Cluster names for the shell."""
    from orchestrator.clusters.load import cluster_names

    return [name for name in cluster_names() if name.startswith(incomplete)]


ClusterName = Annotated[
    str,
    typer.Argument(
        metavar="CLUSTER", help="A profile's name or file.", autocompletion=complete_cluster
    ),
]


@app.command("list")
def list_clusters(as_json: AsJson = False) -> None:
    """List the shipped profiles, yours in ~/.config/ft/clusters and those in ./clusters."""
    from orchestrator import ui
    from orchestrator.clusters.load import cluster_names, description

    json_mode(as_json)
    entries = [
        {"name": name, "description": description(file), "file": str(file)}
        for name, file in cluster_names().items()
    ]
    if as_json:
        ui.emit(entries)
        return
    ui.table(
        ("cluster", "description", "file"),
        [(entry["name"], entry["description"], entry["file"]) for entry in entries],
    )


@app.command()
def show(
    cluster: ClusterName,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With variables and defaults written out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a profile."""
    from orchestrator import ui
    from orchestrator.clusters.load import load_cluster, profile_text
    from orchestrator.yaml_out import dump

    json_mode(as_json)
    if not (resolved or as_json):
        ui.raw(profile_text(cluster))
        return
    document = load_cluster(cluster).cluster.model_dump(mode="json")
    if as_json:
        ui.emit(document)
    else:
        ui.raw(dump(document))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new profile.")],
    template: Annotated[
        str,
        typer.Option("--from", help="Profile to copy.", autocompletion=complete_cluster),
    ] = "slurm-generic",
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; default clusters/NAME.yaml.")
    ] = None,
) -> None:
    """Write a profile of your own, as a copy of another one with its comments."""
    import re

    from orchestrator import ui
    from orchestrator.clusters.load import profile_text
    from orchestrator.errors import UsageError
    from orchestrator.files import write_atomic

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"{name!r} is no name for a cluster", hint="letters, digits, '.', '_', '-'"
        )
    target = out or Path("clusters") / f"{name}.yaml"
    if target.exists():
        raise UsageError(f"{target} is there already", hint="edit it, or choose another name")
    write_atomic(target, profile_text(template))
    ui.say(f"{target}: fill it in, then on the login node: ft cluster check {out or name}")


@app.command()
def check(
    cluster: ClusterName,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", help="This backend; may be repeated. Default: those that have a place."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a profile on the login node: commands, jobs, modules, environments, scratch."""
    from rich.text import Text

    from orchestrator import ui
    from orchestrator.clusters.check import chosen_backends, look
    from orchestrator.clusters.load import load_cluster
    from orchestrator.environments.locks import known
    from orchestrator.errors import Exit

    json_mode(as_json)
    for name in backend or ():
        known(name)
    found = load_cluster(cluster).cluster
    if found.environment.home:
        os.environ["FT_HOME"] = found.environment.home
    results = list(look(found, tuple(backend or chosen_backends(found))))
    if as_json:
        ui.emit([{"name": r.name, "level": r.level, "detail": r.detail,
                  "fix": r.finding.fix if r.finding else ""} for r in results])  # fmt: skip
    else:
        marks = {
            "ok": Text("✔", "green"), "warning": Text("!", "yellow"), "error": Text("✘", "red"),
        }  # fmt: skip
        ui.table(("", "what", ""), [(marks[r.level], r.name, r.detail) for r in results])
        ui.show_findings([r.finding for r in results if r.finding])
    if any(result.level == "error" for result in results):
        raise typer.Exit(int(Exit.CHECK))
