"""`ft recipe validate`: ft's own checks, and with `--deep` the backend's."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    AsJson,
    BackendName,
    NoInstall,
    Overrides,
    complete_recipe,
    json_mode,
    load,
)

if TYPE_CHECKING:
    from orchestrator.findings import Finding
    from orchestrator.recipe.load import Loaded


class Checked:
    """A recipe that was asked for, and what was found."""

    def __init__(self, name: str, loaded: "Loaded | None", findings: "list[Finding]") -> None:
        self.name = name
        self.loaded = loaded
        self.findings = findings
        self.asked = False

    @property
    def errors(self) -> int:
        """How many findings forbid a run."""
        from orchestrator.findings import errors_of

        return len(errors_of(self.findings))

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        document = {
            "recipe": self.name,
            "ok": not self.errors,
            "findings": [finding.as_dict() for finding in self.findings],
        }
        if self.loaded:
            document["backend"] = self.loaded.recipe.backend
        return document | ({"deep": True} if self.asked else {})


def validate(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE...", autocompletion=complete_recipe, help="Recipes."),
    ] = None,
    overrides: Overrides = None,
    backend: BackendName = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Every recipe that can be named; with --deep for every backend that can."
        ),
    ] = False,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also ask the backend itself, in its environment (seconds)."),
    ] = False,
    gpu: Annotated[
        str, typer.Option("--gpu", help="Target that --deep judges for: a100, h100 or cpu.")
    ] = "h100",
    no_install: NoInstall = False,
    as_json: AsJson = False,
) -> None:
    """Check recipes and their local data; all findings at once, in under a second."""
    from orchestrator import ui
    from orchestrator.errors import Exit, UsageError
    from orchestrator.recipe.sources import recipe_names

    json_mode(as_json)
    names = [*(recipes or []), *(recipe_names() if every else [])]
    if not names:
        raise UsageError("name a recipe", hint="ft recipe validate RECIPE, or --all")
    if deep:
        from orchestrator.deep import known_gpu

        known_gpu(gpu)
    both = every and deep and not backend
    checked = [one for name in names for one in _checked(name, overrides, backend, both=both)]
    refused = sum(one.errors for one in checked)
    if deep:
        ask([one for one in checked if one.loaded and not one.errors], gpu, not no_install)
    for one in checked:
        ui.show_findings(one.findings)
        label = f"{one.name} ({one.loaded.recipe.backend})" if both and one.loaded else one.name
        ui.say(f"{label}: {_verdict(one)}")
    bad = sum(one.errors for one in checked)
    if as_json:
        ui.emit({"ok": not bad, "recipes": [one.as_dict() for one in checked]})
    if bad:
        raise typer.Exit(int(Exit.USAGE if refused else Exit.CHECK))


def _verdict(one: Checked) -> str:
    if one.errors:
        return f"{one.errors} error" + "s" * (one.errors > 1)
    return f"ok, accepted by {one.loaded.recipe.backend}" if one.asked and one.loaded else "ok"


def _checked(
    name: str, overrides: list[str] | None, backend: str | None, *, both: bool
) -> list[Checked]:
    """One recipe, or with `both` one per backend that can express it."""
    from orchestrator import ui
    from orchestrator.findings import RecipeError

    try:
        loaded = load(name, overrides, backend)
        from orchestrator.problems import find_problems  # after what fails soonest

        with ui.reading() as progress:
            own = Checked(name, loaded, find_problems(loaded, progress=progress))
        if not both:
            return [own]
        from orchestrator.backends.registry import BACKENDS

        others = [b for b in BACKENDS if b != loaded.recipe.backend]
        switched = [load(name, overrides, other) for other in others]
        more = [Checked(name, other, find_problems(other, data=False)) for other in switched]
        return [own, *(one for one in more if not one.errors)]
    except RecipeError as error:
        return [Checked(name, None, list(error.findings))]


def ask(checked: list[Checked], gpu: str, install: bool) -> None:
    """Add what the backends say to the findings."""
    from orchestrator.checks import placed
    from orchestrator.deep import ask as ask_backends

    recipes = [one.loaded for one in checked if one.loaded]
    for one, findings in zip(checked, ask_backends(recipes, gpu=gpu, install=install), strict=True):
        assert one.loaded is not None
        one.findings = [*one.findings, *placed(findings, one.loaded)]
        one.asked = True
