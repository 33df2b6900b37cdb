"""Every mistake is named, by its own name, and sound data by none."""

from collections.abc import Callable

import pytest

from tests.smoke.planted.making import Case, Made, make_all
from tests.smoke.planted.proof import observed
from tests.smoke.planted.table import CASES, CLEAN, PLANTED

pytestmark = pytest.mark.backend


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Made]:
    """All cases, prepared once."""
    cases = make_all(CASES, tmp_path_factory.mktemp("planted"))
    return lambda case: cases[case.id]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_mistake_is_there_and_no_other(case: Case, made: Callable[[Case], Made]) -> None:
    seen = observed(made(case))
    assert seen - case.also == ({case.code} if case.code else set())


def test_the_table_is_whole() -> None:
    codes = [*range(501, 510), *range(530, 539)]
    for backend in ("axolotl", "llamafactory"):
        planted = {case.code for case in PLANTED if case.backend == backend}
        assert planted == {f"FT{code}" for code in codes}
    assert len({case.id for case in CASES}) == len(CASES) == len(CLEAN) + len(PLANTED)
