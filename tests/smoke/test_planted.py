"""Every mistake is named, by its own name, and sound data by none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.labels.facts import Subject
from orchestrator.labels.judge import judge
from tests.smoke.planted.making import Case, Made, make_all
from tests.smoke.planted.mutations import KINDS, flipped, flips
from tests.smoke.planted.proof import observed
from tests.smoke.planted.table import BACKENDS, CASES, CLEAN, PLANTED, SMALL

pytestmark = pytest.mark.backend

CODES = {f"FT{code}" for code in (*range(501, 510), *range(530, 539))}
FLIPS = 6
"""How many flips of each kind, per case."""
MUTATED = [
    *SMALL,
    *(case for case in CLEAN if case.name in ("clean-alpaca", "clean-packed")),
    *(case for case in CLEAN if case.id == "llamafactory-clean-preference"),
]
"""Sound data whose labels are flipped. axolotl's preference data has no labels yet."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Made]:
    """All cases, prepared once."""
    cases = make_all(CASES, tmp_path_factory.mktemp("planted"))
    return lambda case: cases[case.id]


def named(made: Made, dataset: Path | None = None) -> set[str]:
    """The codes of the verdict's warnings and errors."""
    subject = Subject(
        recipe=made.recipe,
        dataset=dataset or made.dataset,
        tokenizer=made.tokenizer,
        validation=made.validation,
        sources=made.sources,
        validation_sources=made.validation_sources,
        base=str(made.base),
    )
    return {f.code for f in judge(subject).findings if f.level in ("warning", "error")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_mistake_is_there_and_no_other(case: Case, made: Callable[[Case], Made]) -> None:
    seen = observed(made(case)) - case.unseen
    assert seen - case.also == ({case.code} if case.code else set())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_verdict_names_exactly_the_mistake(case: Case, made: Callable[[Case], Made]) -> None:
    assert named(made(case)) - case.also == ({case.code} if case.code else set())


@pytest.mark.parametrize("case", MUTATED, ids=lambda case: case.id)
def test_the_verdict_notices_every_flip(
    case: Case, made: Callable[[Case], Made], tmp_path: Path
) -> None:
    missed = [
        (flip, found)
        for flip in flips(made(case), FLIPS)
        if (found := named(made(case), flipped(made(case), flip, tmp_path / "flipped")))
        != {KINDS[flip.kind]}
    ]
    assert missed == []


def test_the_table_is_whole() -> None:
    for backend in BACKENDS:
        assert {case.code for case in PLANTED if case.backend == backend} == CODES
    assert len({case.id for case in CASES}) == len(CASES) == len(CLEAN) + len(PLANTED)
