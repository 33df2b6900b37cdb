"""Rules over several fields of a recipe: generators of findings, pure and quick.

`FT2xx` are the recipe's own rules, by topic in the modules beside this one. `FT4xx` is what the
chosen backend cannot do (said by its module), `FT6xx` what axolotl and `FT7xx` what LLaMA-Factory
would refuse or do silently otherwise, judged on the rendered configuration. What needs to look at
this machine is in `machine.py`, at the backend's environment in `packages.py`, at data in
`orchestrator.data_check`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from orchestrator.checks.batches import batch_search, kto_pairs
from orchestrator.checks.data import chat_template, data_formats, template_of_model
from orchestrator.checks.length import evaluation, length_of_run, schedule
from orchestrator.checks.method import adapter_and_base, learning_rate, numbers, prequantized
from orchestrator.checks.output import backend, native, output
from orchestrator.checks.rendered import native_types, rendered
from orchestrator.checks.sharding import effective_batch, sharding
from orchestrator.findings import Finding, errors_of
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Recipe

__all__ = ["CHECKS", "Check", "check", "has_errors", "look", "placed", "prequantized"]

Check = Callable[[Recipe], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    length_of_run,
    batch_search,
    kto_pairs,
    adapter_and_base,
    data_formats,
    chat_template,
    template_of_model,
    evaluation,
    schedule,
    sharding,
    effective_batch,
    output,
    native,
    native_types,
    learning_rate,
    numbers,
    backend,
)


def check(loaded: Loaded) -> list[Finding]:
    """All findings about a recipe, each with its place."""
    return placed(look(loaded.recipe), loaded)


def look(recipe: Recipe) -> list[Finding]:
    """All findings about a recipe that stands in no file."""
    found = [finding for rule in CHECKS for finding in rule(recipe)]
    if not errors_of(found):  # what has errors may not be renderable
        known = {finding.field for finding in found}
        found += [f for f in rendered(recipe) if not f.field or f.field not in known]
    return found


def placed(findings: Sequence[Finding], loaded: Loaded) -> list[Finding]:
    """The findings with the place of their field where they have none of their own."""
    return [
        finding if finding.place else replace(finding, place=loaded.place(finding.field))
        for finding in findings
    ]


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether a run must not start."""
    return bool(errors_of(findings))
