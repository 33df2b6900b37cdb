"""What ft says of a recipe and what the backend says of it are the same."""

from collections.abc import Sequence

import pytest

from orchestrator.deep import ask
from tests.helpers import ft, loaded
from tests.test_rules import AXOLOTL, LLAMAFACTORY, Case

pytestmark = pytest.mark.backend

NOT_REFUSED = {
    # accepted by the validators, wrong later: that is what the rule is for
    "axolotl": {12, 27, *range(60, 100)},
    "llamafactory": {14, 17, 18, 35, 37, *range(60, 100)},
}


def test_every_shipped_recipe_is_accepted_by_every_backend_that_can() -> None:
    done = ft("recipe", "validate", "--all", "--deep", "--no-install", "--json")
    assert done.code == 0, done.err
    reports = done.json["recipes"]
    assert all(report["ok"] and report["deep"] for report in reports)
    assert len(reports) >= 10
    assert {report["backend"] for report in reports} == {"axolotl", "llamafactory"}


@pytest.mark.parametrize(
    ("backend", "cases"), [("axolotl", AXOLOTL), ("llamafactory", LLAMAFACTORY)]
)
def test_what_a_rule_refuses_the_backend_refuses(backend: str, cases: Sequence[Case]) -> None:
    chosen = [case for case in cases if case[0] not in NOT_REFUSED[backend]]
    recipes = [loaded(backend=backend, **{f"native.{backend}": dict(n)}) for _, n in chosen]
    answers = ask(recipes, install=False)
    accepted = [
        case
        for case, findings in zip(chosen, answers, strict=True)
        if not any(finding.code == "FT521" for finding in findings)
    ]
    assert accepted == []


def test_a_refusal_is_a_bug_of_ours_and_exits_3(tmp_path: object) -> None:
    # axolotl checks the options of torch.compile, ft does not
    done = ft(
        "recipe", "validate", "mistral-qlora", "--deep", "--no-install",
        "--set", "native.axolotl.large_head_attention=nonsense",
    )  # fmt: skip
    assert done.code == 3, done.err
    assert "FT521" in done.err
    assert "bug in ft" in done.err
