"""A run's place on a cluster: the profile, and what the command line says about it.

Findings: `FT242` more GPUs than a node has, `FT245` what compute nodes without a network cannot
reach, `FT246` checkpoints that a time limit would lose.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.backends.base import Target
from orchestrator.clusters import prelude
from orchestrator.clusters.profile import ALL_MEMORY, Cluster, bytes_of, seconds
from orchestrator.environments.home import home
from orchestrator.errors import UsageError
from orchestrator.findings import Finding
from orchestrator.memory.gpus import Gpus, parse
from orchestrator.recipe.models import Recipe
from orchestrator.runs.pace import Pace


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, with nodes and time as this run has them."""

    name: str
    cluster: Cluster
    nodes: int | None = None
    time: str | None = None
    prepare_here: bool = False

    @property
    def time_limit(self) -> str:
        """Time limit of the training job."""
        return self.time or self.cluster.time

    @property
    def data(self) -> Path:
        """Where prepared data is kept."""
        return Path(self.cluster.scratch) / "ft" if self.cluster.scratch else home()

    @property
    def host_memory(self) -> int | None:
        """Bytes of a node's memory that a job gets; None if the profile does not say."""
        memory = self.cluster.memory
        return bytes_of(memory) if memory and memory != ALL_MEMORY else None

    def gpus(self, recipe: Recipe) -> Gpus | None:
        """The GPUs that the recipe would have here, for the memory plan; None without any.

        Raises:
            UsageError: the profile does not say which they are.
        """
        if not self.cluster.gpus_per_node:
            return None
        if not self.cluster.gpu:
            raise UsageError(
                f"the profile of {self.name} does not say which GPUs its nodes have",
                hint="add `gpu: A100-40GB` (model and memory) to it",
            )
        kind = parse(self.cluster.gpu)
        return replace(kind, count=self.cluster.gpus_per_node, nodes=recipe.distributed.nodes)

    def overrides(self, recipe: Recipe) -> list[str]:
        """What the cluster decides of a recipe that leaves it open, as `--set` would say it."""
        spread = recipe.distributed
        made = [] if self.nodes is None else [f"distributed.nodes={self.nodes}"]
        if spread.strategy == "none":
            return made
        if self.nodes is None and "nodes" not in spread.model_fields_set:
            made.append(f"distributed.nodes={self.cluster.nodes}")
        if spread.gpus is None:
            made.append(f"distributed.gpus={self.cluster.gpus_per_node or 1}")
        return made

    def target(self, recipe: Recipe) -> Target:
        """The machine that the recipe is rendered for."""
        spread = recipe.distributed
        processes = 1 if spread.strategy == "none" else spread.nodes * (spread.gpus or 1)
        if not self.cluster.gpus_per_node:
            return Target("cpu", bf16=False, processes=processes)
        return Target("cuda", bf16=self.cluster.bf16, processes=processes)

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """What the plan's context knows of the cluster."""
        alone = recipe.distributed.strategy == "none"
        return {
            "nodes": 1 if alone else recipe.distributed.nodes,
            "cpus_per_node": self.cluster.cpus_per_node,
            "inherited": prelude.variables(self.cluster),
            "visible_gpu": "",
        }

    def problems(self, recipe: Recipe, pace: Pace | None = None) -> Iterator[Finding]:
        """What the cluster means for the recipe; `pace` is that of an earlier run."""
        spread, each = recipe.distributed, self.cluster.gpus_per_node
        if each and (spread.gpus or 1) > each:
            yield Finding(
                "FT242",
                "error",
                f"{spread.gpus} GPUs are asked for, a node of {self.name} has {each}",
                field="distributed.gpus",
                fix=f"--set distributed.gpus={each}, and more --nodes",
            )
        yield from self._checkpoints(recipe, pace)
        if self.cluster.offline and recipe.output.push_to_hub:
            yield Finding(
                "FT245",
                "error",
                f"the nodes of {self.name} cannot reach the hub to push the export",
                field="output.push_to_hub",
                fix="--set output.push_to_hub=null, and `hf upload` the export afterwards",
            )

    def _checkpoints(self, recipe: Recipe, pace: Pace | None) -> Iterator[Finding]:
        """What a preempted job or a failed node loses: no warning comes before those."""
        save, epochs = recipe.training.save, recipe.training.epochs
        limit = seconds(self.time_limit)
        between = pace.between_checkpoints(recipe) if pace else None
        if save == "never":
            why = "no checkpoints are saved"
        elif pace and between is not None and between > limit:
            why = (
                f"checkpoints are {between / 3600:.1f} h apart at the pace of {pace.run}, the "
                f"limit is {self.time_limit}: a job saves none before the warning at its end"
            )
        elif pace is None and save == "epoch" and epochs is not None and epochs <= 1:
            why = "the only checkpoint is saved at the end of the only epoch"
        else:
            return
        yield Finding(
            "FT246",
            "warning",
            f"{why}; a preempted job or a failed node loses all that it has done",
            field="training.save",
            fix="--set training.save=4/epoch, or a number of steps",
        )
