"""A backend's files for use with its own commands, without `ft`."""

from dataclasses import replace

from orchestrator import hardware
from orchestrator.backends import capabilities
from orchestrator.backends.base import Paths, Rendered
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check, has_errors, placed
from orchestrator.distributed import own_file
from orchestrator.findings import Finding, RecipeError
from orchestrator.memory import automatic
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.sources import local_path
from orchestrator.settling import for_processes


def standalone(
    loaded: Loaded, *, allow_loss: bool = False, written_for: str | None = None
) -> tuple[Rendered, list[Finding]]:
    """The backend's files for use with its own commands, paths relative to where they lie.

    With `allow_loss` what the backend cannot express is left out with a warning. `written_for` is
    the recipe's own backend, if it is rendered for another: its native keys are a loss too.

    Raises:
        RecipeError: the recipe has errors.
    """
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
