"""The plan: everything that a run would do, as data.

`build` is pure: the same recipe and context give the same plan. What had to be looked up (paths,
interpreter, hardware, fingerprint) is in the `Context`, which the run's record keeps, so that a
resumed run has the same plan.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.backends.base import Paths, Rendered, RenderedFile, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.launchers import local, slurm
from orchestrator.recipe.models import Recipe
from orchestrator.runs.layout import RunLayout

StageName = Literal["fetch", "preprocess", "inspect", "train", "merge", "export"]
STAGES: tuple[StageName, ...] = ("fetch", "preprocess", "inspect", "train", "merge", "export")

VERIFY_PROMPT = "Below is an instruction that describes a task. What is two plus three?"


@dataclass(frozen=True, slots=True)
class Context:
    """What a plan depends on besides the recipe. Paths are absolute.

    `nodes` are those of the Slurm job that trains (0: no job, this machine trains), `inherited`
    names the variables of a cluster's profile, which its jobs hand on to the backend.
    """

    root: str
    python: str
    probe: str
    prepared: str
    target: Target
    base: str = ""
    sources: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    template: str = ""
    deepspeed: Mapping[str, Any] | None = None
    offline: bool = False
    visible_gpu: str = ""
    nodes: int = 0
    cpus_per_node: int | None = None
    inherited: tuple[str, ...] = ()
    smoke: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> "Context":
        """The context that `as_dict` wrote."""
        values = dict(document)
        values["target"] = Target(**values["target"])
        values["deepspeed"] = values.get("deepspeed") or None
        for name in ("sources", "validation_sources", "inherited"):
            values[name] = tuple(values[name])
        return Context(**values)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run. Without a command it is done by `ft` itself."""

    name: StageName
    summary: str
    argv: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Files, stages and commands of a run."""

    recipe: Recipe
    context: Context
    rendered: Rendered
    files: tuple[RenderedFile, ...]
    stages: tuple[Stage, ...]

    @property
    def layout(self) -> RunLayout:
        """The run directory's names."""
        return RunLayout(Path(self.context.root))

    @property
    def training_output(self) -> Path:
        """Where training writes."""
        layout = self.layout
        return layout.adapter if self.recipe.adapter.type == "lora" else layout.model

    @property
    def final_model(self) -> Path:
        """What an export is made of: the merged model, or what training wrote."""
        merges = any(stage.name == "merge" for stage in self.stages)
        return self.layout.merged if merges else self.training_output

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, if this plan has it."""
        return next((stage for stage in self.stages if stage.name == name), None)


def build(recipe: Recipe, context: Context) -> Plan:
    """The plan of a recipe in a context."""
    layout = RunLayout(Path(context.root))
    lora = recipe.adapter.type == "lora"
    training = layout.adapter if lora else layout.model
    paths = Paths(
        rendered=str(layout.rendered),
        prepared=context.prepared,
        training=str(training),
        merged=str(layout.merged),
        base=context.base,
        sources=context.sources,
        validation_sources=context.validation_sources,
        template=context.template,
        deepspeed=context.deepspeed,
    )
    rendered = BACKENDS[recipe.backend].render(recipe, paths, context.target)
    stages = [_fetch(recipe, context, layout)]
    stages.append(
        _stage(
            recipe,
            context,
            layout,
            "preprocess",
            "tokenize and mask the data",
            {"prepared": context.prepared},
        )
    )
    stages.append(Stage("inspect", "judge which tokens are trained"))
    stages.append(_train(recipe, context, layout, rendered))
    if lora and recipe.output.merge:
        stages.append(
            _stage(
                recipe,
                context,
                layout,
                "merge",
                "merge the LoRA into the unquantized base",
                {
                    "adapter": str(training),
                    "base": context.base or recipe.model.base,
                    "revision": recipe.model.revision,
                    "trust_remote_code": recipe.model.trust_remote_code,
                    "output": str(layout.merged),
                    "verify": True,
                    "prompt": VERIFY_PROMPT,
                },
            )
        )
    if recipe.output.export:
        push = f" and push to {recipe.output.push_to_hub}" if recipe.output.push_to_hub else ""
        stages.append(Stage("export", f"make a clean model folder{push}"))
    requests = tuple(
        RenderedFile(layout.request(s.name).name, json.dumps(s.request, indent=2) + "\n")
        for s in stages
        if s.request is not None
    )
    return Plan(recipe, context, rendered, (*rendered.files, *requests), tuple(stages))


def _fetch(recipe: Recipe, context: Context, layout: RunLayout) -> Stage:
    if not context.smoke:
        return Stage("fetch", "have the model and the data on this machine")
    request = {
        **_request(recipe, layout, "fetch"),
        "task": "twin",
        "events": None,
        **context.smoke,
    }
    return Stage(
        "fetch",
        "make a tiny random model and tokenizer of the same family",
        local.command(context.python, context.probe, str(layout.request("fetch")), id=layout.id),
        request=request,
    )


def _request(recipe: Recipe, layout: RunLayout, name: StageName) -> dict[str, Any]:
    return {
        "version": 1,
        "backend": recipe.backend,
        "task": name,
        "result": str(layout.result(name)),
        "events": str(layout.events),
    }


def _stage(
    recipe: Recipe,
    context: Context,
    layout: RunLayout,
    name: StageName,
    summary: str,
    arguments: Mapping[str, Any],
) -> Stage:
    """A stage in one backend process."""
    common = BACKENDS[recipe.backend].tokenization(recipe)
    request = {
        **_request(recipe, layout, name),
        "config": str(layout.rendered / f"{name}.yaml"),
        **({"common": common} if common else {}),
        **arguments,
    }
    argv = local.command(context.python, context.probe, str(layout.request(name)), id=layout.id)
    variables = {"CUDA_VISIBLE_DEVICES": context.visible_gpu} if context.visible_gpu else {}
    if context.smoke:
        # two threads on matrices this small only wait for each other
        variables["OMP_NUM_THREADS"] = "1"
    return Stage(name, summary, argv, variables, request)


def _train(recipe: Recipe, context: Context, layout: RunLayout, rendered: Rendered) -> Stage:
    """Training: in one process, or in several through the launcher."""
    asked: dict[str, Any] = {"resume": None}
    if context.nodes:
        asked["stop"] = str(layout.stop)
    processes = context.target.processes
    if processes > 1:
        asked |= {"processes": processes, "device": context.target.device}
    stage = _stage(recipe, context, layout, "train", "train", asked)
    elastic = recipe.distributed.strategy in ("deepspeed", "fsdp")
    request = str(layout.request("train"))
    if context.nodes:
        argv = slurm.train_command(
            context.python,
            context.probe,
            request,
            nodes=context.nodes,
            processes=processes,
            elastic=elastic,
            cpus=context.cpus_per_node,
            id=layout.id,
        )
    else:
        argv = local.command(
            context.python,
            context.probe,
            request,
            processes=processes,
            elastic=elastic,
            id=layout.id,
        )
    spread = "" if processes == 1 and not elastic else f" in {processes} processes"
    spread += f" on {context.nodes} nodes" if context.nodes > 1 else ""
    variables = {**stage.variables, **rendered.variables}
    if recipe.tracking.type in ("wandb", "all"):
        variables["WANDB_DIR"] = str(layout.root)  # where `ft runs sync` looks for offline runs
    return dataclasses.replace(stage, summary=f"train{spread}", argv=argv, variables=variables)
