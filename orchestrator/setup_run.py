"""From a recipe to a plan: everything that has to be looked up, in one place.

Nothing is changed by looking; `run_folder.create` makes the run's folder afterwards.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import contents, plan, smoke
from orchestrator.checks import has_errors
from orchestrator.clusters.site import Site
from orchestrator.data_check import Progress
from orchestrator.distributed import own_file
from orchestrator.environments.environment import find
from orchestrator.environments.home import home
from orchestrator.environments.locks import RELEASES
from orchestrator.errors import BackendEnvironmentError
from orchestrator.findings import Finding, RecipeError
from orchestrator.problems import find_problems
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Recipe
from orchestrator.settling import Settled, settle

PROBE = Path(__file__).resolve().parent / "probe" / "stage.py"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe ready to be planned: all but the run's folder is known."""

    recipe: Recipe
    origin: Path
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]
    facts: dict[str, Any]

    def plan(self, root: Path, python: str) -> plan.Plan:
        """The plan of a run in `root` with the backend's interpreter."""
        context = plan.Context(root=str(root), python=python, probe=str(PROBE), **self.facts)
        return plan.build(self.recipe, context)


def resolve(
    loaded: Loaded,
    *,
    smoke_run: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
    site: Site | None = None,
) -> Resolved:
    """Check the recipe and look everything up that its plan needs, for here or for a cluster.

    Raises:
        RecipeError: the recipe or its data have errors.
    """
    beside = loaded.file.resolve().parent
    decided: tuple[Finding, ...] = ()
    settled = None
    if not smoke_run:
        settled = settle(loaded, site, offline=offline)
        loaded, decided = settled.loaded, settled.findings
    findings = [*decided, *find_problems(loaded, data=not smoke_run, progress=progress)]
    if site:  # nobody is there to answer a job's question for a key
        findings = [replace(f, level="error") if f.code == "FT231" else f for f in findings]
    if has_errors(findings):
        raise RecipeError(findings)
    recipe, changes = loaded.recipe, tuple[str, ...]()
    if settled is None:
        family = smoke.family_of(recipe, contents.model_type(recipe, beside))
        recipe, changes = smoke.smoke_recipe(recipe, family)
        facts = contents.of_twin(recipe, family)
    else:
        facts = _facts(settled, beside, offline)
    return Resolved(recipe, loaded.file, tuple(findings), changes, _on_site(facts, recipe, site))


def pinned(resolved: Resolved, site: Site) -> Resolved:
    """The same with model and data where fetching has put them, so that no job asks the hub.

    `datasets` loads a data set of the hub offline only if it has prepared it before; a folder with
    the same files it always loads.
    """
    content = contents.found(resolved.recipe, resolved.origin.resolve().parent, offline=True)
    facts = _on_site({**resolved.facts, **content}, resolved.recipe, site)
    return replace(resolved, facts=facts)


def _on_site(facts: dict[str, Any], recipe: Recipe, site: Site | None) -> dict[str, Any]:
    if site is None:
        return facts
    prepared = str(site.data / "prepared" / Path(facts["prepared"]).name)
    return {**facts, **site.facts(recipe), "prepared": prepared}


def _facts(settled: Settled, beside: Path, offline: bool) -> dict[str, Any]:
    recipe, target = settled.loaded.recipe, settled.target
    alone = target.device == "cuda" and target.processes == 1 and len(settled.gpus) > 1
    return {
        **contents.found(recipe, beside, offline),
        "target": target,
        "deepspeed": own_file.of_recipe(recipe, beside),
        "visible_gpu": settled.gpus[0].index if alone else "",
    }


def planned_only(resolved: Resolved) -> plan.Plan:
    """The plan of a run that is not made: folder and interpreter as they would be."""
    name = f"<time>-{resolved.recipe.name}-<id>"
    root = Path(resolved.recipe.output.directory).resolve() / name
    return resolved.plan(root, str(expected_python(resolved.recipe.backend)))


def expected_python(backend: str) -> Path:
    """The backend's interpreter, or where it would be once it is installed."""
    try:
        return find(backend).python
    except BackendEnvironmentError:
        return home() / "environments" / f"{backend}-{RELEASES[backend]}" / "bin" / "python"
