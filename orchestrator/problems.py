"""Everything that can be seen of a recipe and its local data, before anything is looked up.

A module of its own, so that `ft recipe validate` imports nothing else.
"""

from orchestrator.checks import check, machine, placed
from orchestrator.checks.counts import from_rows
from orchestrator.checks.output import resuming
from orchestrator.checks.packages import packages
from orchestrator.data_check import Progress, read_data
from orchestrator.findings import Finding
from orchestrator.recipe.load import Loaded


def find_problems(
    loaded: Loaded, *, data: bool = True, progress: Progress | None = None
) -> list[Finding]:
    """Every finding about a recipe and, unless `data` is false, about its local files."""
    recipe, beside = loaded.recipe, loaded.file.resolve().parent
    found = check(loaded)
    if data:
        report = read_data(recipe, beside, progress)
        found += placed(report.findings, loaded)
        rows = report.total(recipe)
        if rows:
            found += placed(list(from_rows(recipe, rows)), loaded)
        found += placed(list(machine.look(recipe, beside)), loaded)
    found += placed([*resuming(recipe), *packages(recipe)], loaded)
    return found
