"""`ft recipe run --on CLUSTER`: fetch here, submit the rest."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.cluster import complete_cluster

if TYPE_CHECKING:
    from orchestrator.clusters.site import Site
    from orchestrator.launchers.slurm import Job
    from orchestrator.pipeline import Pipeline
    from orchestrator.plan import Plan
    from orchestrator.recipe.load import Loaded
    from orchestrator.runs.record import Record

On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="CLUSTER", help="On this cluster; see `ft cluster list`.",
        autocompletion=complete_cluster,
    ),
]  # fmt: skip
Nodes = Annotated[int | None, typer.Option("--nodes", min=1, help="With --on: nodes that train.")]
Time = Annotated[
    str | None, typer.Option("--time", help="With --on: time limit of training, like 8:00:00.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="With --on: print the batch scripts, submit nothing.")
]
PrepareHere = Annotated[
    bool,
    typer.Option("--prepare-here", help="With --on: preprocess and judge on this node, now."),
]


def site(
    on: str | None, nodes: int | None, time: str | None, dry_run: bool, prepare_here: bool
) -> "Site | None":
    """The cluster that a command names; None without one.

    Raises:
        UsageError: an option without --on, or a time that is none.
        RecipeError: the profile has errors.
    """
    from orchestrator.errors import UsageError

    if on is None:
        given = {"--nodes": nodes, "--time": time, "--dry-run": dry_run,
                 "--prepare-here": prepare_here}  # fmt: skip
        for option, value in given.items():
            if value:
                fix = "`ft recipe plan`" if dry_run else "--on CLUSTER; see `ft cluster list`"
                raise UsageError(f"{option} is for a cluster", hint=fix)
        return None
    from pydantic import ValidationError

    from orchestrator.clusters.load import load_cluster
    from orchestrator.clusters.profile import Cluster
    from orchestrator.clusters.site import Site

    found = load_cluster(on)
    if time is not None:
        try:  # the profile's own rules hold for it: the form, and room for the warning
            Cluster.model_validate({**found.cluster.model_dump(mode="json"), "time": time})
        except ValidationError as error:
            words = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"--time: {words}", hint="like 8:00:00, 30:00 or 2-00:00") from error
    return Site(found.name, found.cluster, nodes, time, prepare_here)


def load_on(where: "Site", name: str, overrides: list[str] | None, backend: str | None) -> "Loaded":
    """The recipe with what the cluster decides put in, where the recipe leaves it open."""
    from orchestrator.cli.common import load

    recipe = load(name, overrides, backend).recipe
    return load(name, [*(overrides or ()), *where.overrides(recipe)], backend)


def run_on(
    where: "Site",
    name: str,
    overrides: list[str] | None,
    backend: str | None,
    *,
    smoke: bool,
    offline: bool,
    install: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch here, then submit the rest; or only print the scripts."""
    from orchestrator.cli.common import resolve, start
    from orchestrator.cli.fetching import fetched_and_pinned
    from orchestrator.launchers import queue
    from orchestrator.setup_run import planned_only
    from orchestrator.submission import enter, jobs

    if not dry_run:
        queue.ready()
    loaded = load_on(where, name, overrides, backend)
    enter(where, loaded.recipe.backend, activate=not dry_run)
    resolved = resolve(loaded, smoke=smoke, offline=offline, site=where)
    if dry_run:
        planned = planned_only(resolved)
        show_scripts(planned, jobs(planned, where), as_json=as_json)
        return
    if not smoke:
        resolved = fetched_and_pinned(resolved, where, offline=offline)
    pipeline = start(resolved, install=install)
    submit(pipeline, where, as_json=as_json)


def show_scripts(planned: "Plan", chain: "tuple[Job, ...]", *, as_json: bool) -> None:
    """The batch scripts of a chain, and what ft starts in them."""
    from rich.rule import Rule

    from orchestrator import shell, ui

    commands = {stage.name: list(stage.argv) for stage in planned.stages if stage.argv}
    if as_json:
        ui.emit(
            [
                {
                    "name": job.name,
                    "stages": list(job.stages),
                    "script": job.script,
                    "commands": {s: commands[s] for s in job.stages if s in commands},
                }
                for job in chain
            ]
        )
        return
    for job in chain:
        ui.say(Rule(f"{job.name}: {', '.join(job.stages)}", align="left", style="cyan"))
        ui.raw(job.script)
        for stage in job.stages:
            if stage in commands:
                ui.raw(f"# {stage}: {shell.shown(commands[stage])}")


def submit(pipeline: "Pipeline", where: "Site", *, as_json: bool) -> None:
    """Do what is done on this node, submit the rest, and say how to follow it."""
    from orchestrator import ui
    from orchestrator.submission import submit as submit_chain

    pipeline.run(until="inspect" if where.prepare_here else "fetch")
    made = submit_chain(pipeline.plan, pipeline.record, where)
    root = pipeline.record.layout.root
    if as_json:
        ui.emit({**pipeline.record.document, "path": str(root)})
        return
    if not made:
        ui.say(f"{root.name} is done: nothing is left to submit")
        return
    for entry in made:
        ui.say(f"job {entry['id']}: {entry['name']} ({', '.join(entry['stages'])})")
    ui.say(f"follow it: ft runs logs -f {root.name}; ft runs status {root.name}")


def submit_again(
    record: "Record", where: "Site", *, install: bool, offline: bool, as_json: bool
) -> None:
    """Submit what a run has not done."""
    from orchestrator.cli.common import reopen
    from orchestrator.clusters.prelude import variables
    from orchestrator.launchers import queue
    from orchestrator.runs.jobs import none_active
    from orchestrator.submission import enter

    queue.ready()
    none_active(record)
    enter(where, str(record.document["backend"]))
    record.update(
        context={
            **record.document["context"],
            "cpus_per_node": where.cluster.cpus_per_node,
            "inherited": variables(where.cluster),
        }
    )
    pipeline = reopen(record.layout.root, install=install, offline=offline)
    submit(pipeline, where, as_json=as_json)
