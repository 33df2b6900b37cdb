"""From a recipe to a plan: everything that has to be looked up, in one place.

`resolve` looks (files, hardware, environment) and changes nothing; `create` makes the run's folder
and writes its files.
"""

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import __version__, fetching, fingerprint, hardware, plan, shell, smoke, yaml_out
from orchestrator.backends import capabilities
from orchestrator.backends.base import Paths, Rendered, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check, has_errors, placed
from orchestrator.clusters.site import Site
from orchestrator.data_check import Progress
from orchestrator.distributed import own_file
from orchestrator.environments.environment import Environment, find
from orchestrator.environments.home import home
from orchestrator.environments.locks import RELEASES
from orchestrator.errors import BackendEnvironmentError, LaunchError
from orchestrator.files import read_json, write_atomic
from orchestrator.findings import Finding, RecipeError
from orchestrator.hub.cache import Repository
from orchestrator.problems import find_problems
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sources import is_snapshot, local_path
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record, new_layout, now
from orchestrator.settling import Settled, for_processes, settle

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
        family = smoke.family_of(recipe, _model_type(recipe, beside))
        recipe, changes = smoke.smoke_recipe(recipe, family)
        facts = _smoke_facts(recipe, family)
    else:
        facts = _facts(settled, beside, offline)
    return Resolved(recipe, loaded.file, tuple(findings), changes, _on_site(facts, recipe, site))


def pinned(resolved: Resolved, site: Site) -> Resolved:
    """The same with model and data where fetching has put them, so that no job asks the hub.

    `datasets` loads a data set of the hub offline only if it has prepared it before; a folder with
    the same files it always loads.
    """
    content = _content(resolved.recipe, resolved.origin.resolve().parent, offline=True)
    facts = _on_site({**resolved.facts, **content}, resolved.recipe, site)
    return replace(resolved, facts=facts)


def _on_site(facts: dict[str, Any], recipe: Recipe, site: Site | None) -> dict[str, Any]:
    if site is None:
        return facts
    prepared = str(site.data / "prepared" / Path(facts["prepared"]).name)
    return {**facts, **site.facts(recipe), "prepared": prepared}


def _model_type(recipe: Recipe, beside: Path) -> str:
    path = local_path(recipe.model.base, beside)
    config = read_json(path / "config.json") if path else None
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _smoke_facts(recipe: Recipe, family: str) -> dict[str, Any]:
    seed = recipe.training.seed
    key = smoke.twin_key(family, RELEASES[recipe.backend], seed)
    directory = home() / "twins" / key
    digest = fingerprint.text_digest(smoke.data_for(recipe.data.sources[0]))
    # one place for the same content: axolotl's own hash of prepared data has the path in it
    data = str(home() / "smoke-data" / f"{digest[:16]}.jsonl")
    name = fingerprint.prepared_name(
        recipe,
        release=RELEASES[recipe.backend],
        tokenizer=key,
        contents=[digest],
        template="",
    )
    folder = PROBE.parent.parent / "smoke_data"
    corpus = [str(folder / f"{name}.jsonl") for name in sorted(set(smoke.FILES.values()))]
    return {
        "prepared": str(home() / "prepared" / name),
        "target": Target("cpu", bf16=False, processes=1),
        "base": str(directory),
        "sources": (data,),
        "validation_sources": (data,) if recipe.data.validation_sources else (),
        "offline": True,
        "smoke": {
            "family": family,
            "directory": str(directory),
            "corpus": corpus,
            "seed": seed,
        },
    }


def _facts(settled: Settled, beside: Path, offline: bool) -> dict[str, Any]:
    recipe, target = settled.loaded.recipe, settled.target
    alone = target.device == "cuda" and target.processes == 1 and len(settled.gpus) > 1
    return {
        **_content(recipe, beside, offline),
        "target": target,
        "deepspeed": own_file.of_recipe(recipe, beside),
        "visible_gpu": settled.gpus[0].index if alone else "",
    }


def _content(recipe: Recipe, beside: Path, offline: bool) -> dict[str, Any]:
    """Where model and data are, offline also in the hub's cache, and what is made of them."""
    base = local_path(recipe.model.base, beside) or (
        _cached(fetching.base_of(recipe)) if offline else None
    )
    sources = [(s.path, _data_path(s, beside, offline)) for s in recipe.data.sources]
    others = [(s.path, _data_path(s, beside, offline)) for s in recipe.data.validation_sources]
    template = (
        local_path(recipe.data.chat_template, beside)
        if recipe.data.chat_template.endswith(".jinja")
        else None
    )
    # with the path: axolotl's own hash of prepared data has it in it, the content is in ours
    contents = [
        name if path is None else str(path) if is_snapshot(path)
        else f"{path}:{fingerprint.file_digest(path)}"
        for name, path in (*sources, *others)
    ]  # fmt: skip
    name = fingerprint.prepared_name(
        recipe,
        release=RELEASES[recipe.backend],
        tokenizer=f"{base}:{fingerprint.tokenizer_digest(base)}" if base else recipe.model.base,
        contents=contents,
        template=fingerprint.file_digest(template) if template else "",
    )
    all_local = base is not None and all(path for _, path in (*sources, *others))
    return {
        "prepared": str(home() / "prepared" / name),
        "base": str(base) if base else "",
        "sources": tuple(str(path or name) for name, path in sources),
        "validation_sources": tuple(str(path or name) for name, path in others),
        "template": str(template) if template else "",
        "offline": offline or all_local,
    }


def _data_path(source: Source, beside: Path, offline: bool) -> Path | None:
    """Where a source is: a file or folder, offline also in the hub's cache."""
    found = local_path(source.path, beside)
    if found or not offline or source.format == "registered":
        return found
    return _cached(fetching.data_of(source))


def _cached(repository: Repository) -> Path | None:
    folder = fetching.cached(repository)
    return Path(folder) if folder else None


def create(resolved: Resolved, environment: Environment) -> tuple[plan.Plan, Record]:
    """Make the run's folder and write the recipe, the rendered files and the record."""
    layout = new_layout(Path(resolved.recipe.output.directory), resolved.recipe.name)
    try:
        return _written(resolved, environment, layout)
    except BaseException:
        shutil.rmtree(layout.root, ignore_errors=True)
        raise


def _written(
    resolved: Resolved, environment: Environment, layout: RunLayout
) -> tuple[plan.Plan, Record]:
    planned = resolved.plan(layout.root, str(environment.python))
    for file in planned.files:
        write_atomic(layout.rendered / file.name, file.text)
    if planned.context.smoke:
        write_atomic(
            Path(planned.context.sources[0]), smoke.data_for(planned.recipe.data.sources[0])
        )
    write_atomic(layout.recipe, yaml_out.dump(resolved.recipe.model_dump(mode="json")))
    record = Record(layout, {})
    record.update(
        version=1,
        id=layout.id,
        status="waiting",
        recipe=resolved.recipe.name,
        recipe_file=str(resolved.origin.resolve()),
        backend=resolved.recipe.backend,
        started=now(),
        ft=__version__,
        environment=environment_facts(environment),
        git=git_commit(resolved.origin.resolve().parent),
        smoke=bool(resolved.facts.get("smoke")),
        changes=list(resolved.changes),
        findings=[finding.as_dict() for finding in resolved.findings],
        fingerprint=Path(planned.context.prepared).name,
        context=planned.context.as_dict(),
        commands={s.name: list(s.argv) for s in planned.stages if s.argv},
        stages={stage.name: {"status": "waiting"} for stage in planned.stages},
    )
    return planned, record


def environment_facts(environment: Environment) -> dict[str, Any]:
    """What the record keeps of the backend environment."""
    return {
        "name": environment.name,
        "prefix": str(environment.prefix),
        "origin": environment.origin,
        "release": environment.release,
    }


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that the recipe is in, and whether it has changes; None if none."""
    env = {"PATH": shell.system_path(), "HOME": str(Path.home()), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        code, commit, _ = shell.capture(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], env=env, timeout=10
        )
        if code:
            return None
        _, status, _ = shell.capture(
            ["git", "-C", str(folder), "status", "--porcelain", "-uno"], env=env, timeout=10
        )
    except (LaunchError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


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


def standalone(
    loaded: Loaded, *, allow_loss: bool = False, written_for: str | None = None
) -> tuple[Rendered, list[Finding]]:
    """The backend's files for use with its own commands, paths relative to where they lie.

    With `allow_loss` what the backend cannot express is left out with a warning. `written_for` is
    the recipe's own backend, if it is rendered for another: its native keys are a loss too.

    Raises:
        RecipeError: the recipe has errors.
    """
    from orchestrator.memory import automatic

    target = hardware.rendering_target(loaded.recipe)
    own = own_file.of_recipe(loaded.recipe, loaded.file.resolve().parent)
    recipe, decided = for_processes(loaded.recipe, target.processes, own)
    loaded = replace(loaded, recipe=recipe)
    findings = check(loaded) + placed([*automatic.undecided(recipe), *decided], loaded)
    if written_for and written_for != loaded.recipe.backend:
        findings += placed(list(capabilities.lost_native(loaded.recipe, written_for)), loaded)
    if allow_loss:
        findings = [capabilities.allowed(finding) for finding in findings]
    if has_errors(findings):
        raise RecipeError(findings)
    findings += placed(list(BACKENDS[loaded.recipe.backend].by_itself(loaded.recipe)), loaded)
    recipe, beside = loaded.recipe, loaded.file.resolve().parent

    def where(name: str) -> str:
        path = local_path(name, beside)
        return str(path) if path else name

    paths = Paths(
        prepared=recipe.data.prepared or "",
        training=recipe.output.training_directory or "",
        base=where(recipe.model.base),
        sources=tuple(where(source.path) for source in recipe.data.sources),
        validation_sources=tuple(where(s.path) for s in recipe.data.validation_sources),
        template=where(recipe.data.chat_template),
        deepspeed=own,
    )
    return BACKENDS[recipe.backend].render(recipe, paths, target), findings
