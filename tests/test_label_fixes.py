"""What a finding tells people to type is taken by `ft`."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks import check
from orchestrator.findings import errors_of
from orchestrator.labels.facts import Facts
from orchestrator.labels.rules import RULES, Case
from orchestrator.labels.vocabulary import Vocabulary
from orchestrator.recipe.load import load
from tests.helpers import write_recipe
from tests.label_world import tokenizer

HIT = {
    "count": 3, "tokens": 3, "rows": [0, 1, 2], "worst": 0,
    "notes": {"<|im_start|>": 2, "[INST]": 1}, "examples": [{"offending": "x"}],
}  # fmt: skip
DIFFERENCE = {"kind": "text", "row": 0, "before": "a", "trained": "b", "served": "c"}
CHATS = {"data.sources": [{"path": "user/data", "format": "messages"}]}
RECIPES: tuple[dict[str, Any], ...] = (
    {**CHATS, "data.chat_template": "chatml"},
    {**CHATS, "data.chat_template": "tokenizer"},
    {**CHATS, "data.chat_template": "chatml", "adapter.type": "none"},
)
OVERRIDE = re.compile(r"--set ('[^']+'|[^ ;,()]+)")


def wrong(**changes: Any) -> Facts:
    """Facts that every rule has something to say about, but that something is trained."""
    return Facts(
        rows=3, sequences=3, tokens=30, trained_tokens=30, sequence_length=512, traceable=True,
        turns=3, turns_judged=3, stops={"1": 1}, stops_untrained={"0": 2}, known_stops=[2],
        cut={"answer": 1}, dropped=1, dropped_reasons={"too long": 1}, dropped_places=["a:1"],
        source_rows=4, validation_rows=2, leaked=1, template=DIFFERENCE, compared=1,
        hits={rule.code: HIT for rule in RULES}, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["axolotl", "llamafactory"])
@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_every_fix_can_be_typed(tmp_path: Path, backend: str, number: int) -> None:
    file = write_recipe(tmp_path / "r.yaml", backend=backend, **RECIPES[number])
    tokenizer(tmp_path / "tokenizer", "")
    vocabulary = Vocabulary.load(tmp_path / "tokenizer")
    recipe = load(file).recipe
    said = [rule.say(Case(wrong(), recipe, vocabulary)) for rule in RULES]
    assert sum(one is not None for one in said) == len(RULES) - 1  # all but nothing-trained
    for one in filter(None, said):
        typed = [shlex.split(word)[0] for word in OVERRIDE.findall(one.fix)]
        exact = [word for word in typed if not word.endswith("=...")]
        alone = [exact] if "tokens." in one.fix else [[word] for word in exact]
        for overrides in alone:
            found = check(load(file, overrides=overrides))
            assert not errors_of(found), (one.message, overrides, found)
