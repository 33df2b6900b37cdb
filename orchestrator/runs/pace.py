"""How fast an earlier run of a recipe was, which nothing else tells before a run has begun."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.recipe.models import Recipe
from orchestrator.runs.record import Record, readable_runs


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of an optimizer step, and steps of the whole training, in that run."""

    run: str
    seconds_per_step: float
    steps: int

    def between_checkpoints(self, recipe: Recipe) -> float | None:
        """Seconds from one checkpoint to the next; None if they depend on the evaluation."""
        save, epochs = recipe.training.save, recipe.training.epochs
        per_epoch = self.steps / epochs if epochs else self.steps
        if isinstance(save, int):
            steps = float(save)
        elif isinstance(save, float):
            steps = save * self.steps
        elif save == "epoch":
            steps = per_epoch
        elif save and save.endswith("/epoch"):
            steps = per_epoch / int(save.partition("/")[0])
        else:
            return None
        return min(steps, self.steps) * self.seconds_per_step


def earlier(recipe: Recipe, cluster: str, processes: int) -> Pace | None:
    """The pace of the latest whole training of this recipe, as spread as now, on that cluster."""
    found = None
    for record in readable_runs(Path(recipe.output.directory)):
        found = _pace(record, recipe, cluster, processes) or found
    return found


def _pace(record: Record, recipe: Recipe, cluster: str, processes: int) -> Pace | None:
    document = record.document
    facts = document.get("stages", {}).get("train", {}).get("facts") or {}
    same = (
        document.get("recipe") == recipe.name
        and document.get("backend") == recipe.backend
        and not document.get("smoke")
        and (document.get("cluster") or {}).get("name") == cluster
        and facts.get("world_size") == processes
        and not facts.get("resumed_from")  # its time is that of its last part
    )
    seconds, steps = facts.get("runtime_seconds"), facts.get("global_step")
    if not (same and seconds and steps):
        return None
    return Pace(record.layout.id, seconds / steps, facts.get("max_steps") or steps)
