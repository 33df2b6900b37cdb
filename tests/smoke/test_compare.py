"""Both backends give the same ids and labels for the same rows, really prepared by both."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import smoke
from orchestrator.backends.registry import BACKENDS
from orchestrator.labels.compare import Comparison, Side, compare
from orchestrator.recipe.models import ColumnRole, Source, column
from tests.smoke import batch

pytestmark = pytest.mark.backend

Rows = list[dict[str, Any]]
LONG = "long " * 30
TEXTS = (
    "What is 2+2?",
    "  spaces around  ",
    "\nnewlines around\n\n",
    "naïve café 日本語 🙂👩‍👩‍👧 e\u0301",
    "```python\ndef f(x):\n    return x\n\n\tprint('tab')\n```\n",
    "{instruction} {{content}} {{idx}} {% raw %} %s",
    "tokens </s> <|im_end|> <|eot_id|> [INST] in a text",
    "tab\tand\r\nCRLF",
    "12345",
    LONG,
)
"""Contents that templates, trimming and tokenizing by pieces treat differently."""


def shipped(source: Source) -> Rows:
    """The rows that ship for smoke runs."""
    return [json.loads(line) for line in smoke.data_for(source).splitlines()]


def instructions(source: Source) -> Rows:
    """Those, and every text in every column, and inputs that are empty, missing or blank."""
    inputs: tuple[str | None, ...] = ("", None, "   ", *TEXTS)
    rows = shipped(source)
    for i, text in enumerate(TEXTS * 3):
        answer = TEXTS[(i * 7 + 1) % len(TEXTS)]
        values = {"instruction": f"{text}{i}", "input": inputs[i % len(inputs)], "output": answer}
        names = {role: column(source, as_role(role)) for role in values}
        rows.append({name: values[role] for role, name in names.items() if name})
    return rows


def as_role(name: str) -> ColumnRole:
    """The name as what it is."""
    return name  # type: ignore[return-value]


def conversations(source: Source) -> Rows:
    """Those, and every text in every role: one turn, two; a system prompt, an empty one, none."""
    rows = shipped(source)
    for i, text in enumerate(TEXTS):
        answer = TEXTS[(i + 3) % len(TEXTS)]
        turns = [("user", text), ("assistant", answer)]
        more = [*turns, ("user", f"{answer}{i}"), ("assistant", text)]
        for system in ([], [("system", text)], [("system", "")]):
            for conversation in (turns, more):
                messages = [{"role": r, "content": c} for r, c in (*system, *conversation)]
                rows.append({"messages": messages})
    return rows


@dataclass(frozen=True)
class Case:
    """A shipped recipe on a family's twin, with changes, on some rows."""

    recipe: str
    family: str
    rows: Callable[[Source], Rows]
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        what = [str(value) for _, value in self.changes]
        return "-".join((self.recipe, self.family, self.rows.__name__, *what))


CUT = (("data.overlong", "truncate"), ("data.sequence_length", 100))
OWN = (("data.chat_template", "tokenizer"),)
CASES = (
    Case("qwen-lora-chat", "qwen2", conversations),
    Case("llama3-lora-ds3", "llama3", conversations),
    Case("agnews-lora", "qwen2", instructions),
    Case("mistral-qlora", "mistral", instructions),
    Case("llama-full-z2", "llama3", instructions),
    Case("mistral-dpo", "mistral", shipped),
    Case("qwen-lora-chat", "qwen2", shipped, CUT),
    # harder: SentencePiece-like tokenizers, BOS, templates of the tokenizer's own
    Case("mistral-qlora", "gemma", instructions),
    Case("qwen-lora-chat", "phi3", shipped, (("data.chat_template", "phi3"),)),
    Case("qwen-lora-chat", "gemma2", conversations, (("data.chat_template", "gemma"),)),
    Case("qwen-lora-chat", "mistral", conversations, OWN),
    Case("qwen-lora-chat", "llama2", conversations, OWN),
    Case("qwen-lora-chat", "qwen3", conversations, OWN),
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Comparison]:
    """All cases, prepared by one process per backend."""
    folder = tmp_path_factory.mktemp("compare")
    families = sorted({case.family for case in CASES})
    twins = {name: batch.make_twins(families, folder / f"twins-{name}", name) for name in BACKENDS}
    sides: dict[str, list[Side]] = {}
    for backend in BACKENDS:
        plans = []
        for i, case in enumerate(CASES):
            recipe = batch.twin_recipe(case.recipe, backend, **dict(case.changes))
            rows = case.rows(recipe.data.sources[0])
            twin = twins["axolotl"][case.family]
            plans.append(batch.planned(recipe, folder / f"{backend}-{i}", twin, rows))
        found = batch.prepare(backend, plans, folder / f"{backend}.log")
        sides[backend] = [
            Side(backend, prepared, plan.recipe.data.sequence_length)
            for prepared, plan in zip(found, plans, strict=True)
        ]
    for family in families:
        assert files(twins["axolotl"][family]) == files(twins["llamafactory"][family])
    pairs = zip(sides["axolotl"], sides["llamafactory"], strict=True)
    return {case: compare(*pair, shown=3) for case, pair in zip(CASES, pairs, strict=True)}


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_backends_give_the_same_ids_and_labels(
    compared: dict[Case, Comparison], case: Case
) -> None:
    found = compared[case]
    assert [(d.kind, d.message) for d in found.differences] == []
    assert found.equal, (found.other_ids, found.other_labels, [len(s) for s in found.only])
    assert found.identical >= 30
    trained = [sample.trained for sample in found.sides[0].samples]
    assert all(flags.any() and not flags.all() for flags in trained)
