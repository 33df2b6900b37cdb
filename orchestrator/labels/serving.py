"""What is trained against what the model meets when it is served: template and stop tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.files import read_json
from orchestrator.labels.facts import Facts, Sequences, Subject
from orchestrator.labels.prepared import Prepared
from orchestrator.labels.served import ChatTemplate, difference
from orchestrator.labels.sources import SourceRows
from orchestrator.labels.truth import Messages
from orchestrator.recipe.models import Recipe

COMPARED = 6
"""Conversations that are rendered with the chat template."""


def templates(
    facts: Facts,
    subject: Subject,
    sources: SourceRows,
    parts: Sequence[Sequences],
    prepared: Prepared,
) -> None:
    """The trained text of some conversations against the tokenizer's and the base's template."""
    own = ChatTemplate.of(subject.tokenizer)
    of_base = ChatTemplate.of(Path(subject.base)) if subject.base else None
    if own is None and of_base is None:
        return
    named = (("template", own), ("base_template", of_base))
    for part in parts:
        for (name, source_row), messages in sources.samples.items():
            if name != part.part or facts.compared >= COMPARED:
                continue
            at = np.flatnonzero(part.origins == source_row)
            if not len(at) or part.sizes[at[0]] >= facts.sequence_length - 1:
                continue
            chat = with_system(subject.recipe, messages)
            served = {field: template.render(chat) for field, template in named if template}
            if all(text is None for text in served.values()):
                facts.refused += 1
                continue
            facts.compared += 1
            text = sequence_text(prepared, part, int(at[0]))
            row = int(part.rows[at[0]])
            for field, other in served.items():
                if other is None or getattr(facts, field) is not None:
                    continue
                found = difference(row, text, other, prepared.vocabulary.control_texts)
                if found:
                    setattr(facts, field, found.as_dict())


def with_system(recipe: Recipe, messages: Messages) -> Messages:
    """The messages, with the recipe's system prompt if they have none."""
    system = recipe.data.default_system
    if not system or any(message["role"] == "system" for message in messages):
        return messages
    return ({"role": "system", "content": system}, *messages)


def sequence_text(prepared: Prepared, part: Sequences, at: int) -> str:
    """The text of a sequence, which may be one of several in a packed row."""
    row = int(part.rows[at])
    ids = next(r.ids for r in prepared.row(row) if r.part == part.part)
    before = part.lengths[np.flatnonzero(part.rows[:at] == row)]
    start = int(before.sum())
    return prepared.vocabulary.text(np.array(ids[start : start + int(part.lengths[at])]))


def generation_stops(base: str) -> list[int] | None:
    """The tokens that end generation with the base model; None if that is not known."""
    if not base:
        return None
    for name in ("generation_config.json", "config.json"):
        document = read_json(Path(base) / name)
        eos = document.get("eos_token_id") if isinstance(document, dict) else None
        if eos is not None:
            return [int(token) for token in eos] if isinstance(eos, list) else [int(eos)]
    return None
