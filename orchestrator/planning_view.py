"""A plan for people and programs: every file and every command."""

from typing import Any

from orchestrator import hardware, shell, ui
from orchestrator.clusters.site import Site
from orchestrator.distributed import batch
from orchestrator.errors import UsageError
from orchestrator.memory import planning
from orchestrator.plan import Plan


def memory_of(plan: Plan, site: Site | None) -> planning.MemoryPlan | None:
    """The memory plan for the GPUs of a cluster, or those seen here; None if it cannot be made."""
    if site is None:
        return planning.of_plan(plan, planning.seen(hardware.gpus()))
    try:
        there = site.gpus(plan.recipe)
    except UsageError:  # the profile does not say which GPUs: estimated without comparing
        there = None
    return planning.of_plan(plan, there, site.host_memory)


def plan_document(plan: Plan, memory: planning.MemoryPlan | None) -> dict[str, Any]:
    """The JSON document of `ft recipe plan`."""
    return {
        "recipe": plan.recipe.name,
        "backend": plan.recipe.backend,
        "run": plan.context.root,
        "prepared": plan.context.prepared,
        "target": {
            "device": plan.context.target.device,
            "processes": plan.context.target.processes,
        },
        "batch": batch.of(plan.recipe, plan.context.target.processes).as_dict(),
        "files": {file.name: file.text for file in plan.files},
        "stages": [
            {
                "name": stage.name,
                "summary": stage.summary,
                "command": list(stage.argv) or None,
                "variables": dict(stage.variables),
            }
            for stage in plan.stages
        ],
        "memory": memory.plan.own.as_dict() if memory else None,
    }


def show_plan(plan: Plan, memory: planning.MemoryPlan | None) -> None:
    """Files first, then what is done with them."""
    from rich.rule import Rule
    from rich.syntax import Syntax

    for file in plan.files:
        ui.say(Rule(f"rendered/{file.name}", align="left", style="cyan"))
        language = "json" if file.name.endswith(".json") else "yaml"
        if ui.screen.out.is_terminal:
            ui.say(Syntax(file.text.rstrip(), language, background_color="default"))
        else:
            ui.raw(file.text)
    ui.say(Rule("stages", align="left", style="cyan"))
    for number, stage in enumerate(plan.stages, 1):
        ui.say(f"{number}. {stage.name}: {stage.summary}")
        if stage.argv:
            variables = "".join(f"{name}={value} " for name, value in stage.variables.items())
            ui.raw(f"   {variables}{shell.shown(stage.argv)}")
    ui.say(f"run folder: {plan.context.root}")
    ui.say(f"prepared data: {plan.context.prepared}")
    rows = batch.of(plan.recipe, plan.context.target.processes)
    ui.say(f"batch: {rows}, learning rate {plan.recipe.training.learning_rate:g}")
    if memory:
        ui.say(f"memory: {planning.short(memory)}; details: ft plan memory")
