"""A comparison as text on a terminal and as a JSON document."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator import ui
from orchestrator.labels.compare import KINDS, Comparison, Difference, Sample, Side, Span
from orchestrator.recipe.models import Recipe
from orchestrator.templates import TEMPLATES

if TYPE_CHECKING:
    from rich.text import Text

BEFORE, BEHIND, MOST = 10, 6, 40
"""Tokens that are shown around a difference, and of it."""
TRAINED, MASKED, DIFFERENT = "bold green", "dim", "reverse"


def show(found: Comparison, recipe: Recipe) -> None:
    """The summary, then the first difference of the first rows that differ."""
    from rich.rule import Rule
    from rich.text import Text

    for difference in found.differences:
        ui.say(Rule(_title(found, difference), align="left", style="cyan"))
        ui.say(Text(f"{KINDS[difference.kind]}: {difference.message}"))
        ui.say(_windows(found, difference))
        ui.say(Text(f"fix: {advice(found, difference, recipe)}", style="dim"))
    for side, samples in zip(found.sides, found.only, strict=True):
        if samples:
            ui.say(Rule(f"only {side.name} has these", align="left", style="cyan"))
            for sample in samples[: max(len(found.differences), 3)]:
                ui.say(Text(f"row {sample.row}: {_short(side, sample)}"))
            ui.say(Text(_missing(found, side, samples), style="dim"))
    ui.say(Rule("all rows", align="left", style="cyan"))
    _legend()
    names = found.names
    lines = [
        ("rows", ", ".join(f"{side.name} {len(side.samples):,}" for side in found.sides)),
        ("identical", f"{found.identical:,}"),
        ("same ids, other labels", f"{found.other_labels:,}"),
        ("different ids", f"{found.other_ids:,}"),
        *((f"only {n}", f"{len(s):,}") for n, s in zip(names, found.only, strict=True)),
        *((f"first difference: {KINDS[k]}", f"{n:,}") for k, n in found.kinds.most_common()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        ui.say(f"{name:<{width}}  {value}")


def _legend() -> None:
    from rich.text import Text

    legend = Text("trained", style=TRAINED)
    legend.append("  masked", style=MASKED)
    legend.append("  ")
    legend.append("differs", style=DIFFERENT)
    ui.say(legend)


def _title(found: Comparison, difference: Difference) -> str:
    part = f" {difference.pair[0].part}" if difference.pair[0].part else ""
    rows = zip(found.names, difference.pair, difference.spans, strict=True)
    return f"row{part}: " + ", ".join(
        f"{name} {sample.row} at token {span.start}" for name, sample, span in rows
    )


def _windows(found: Comparison, difference: Difference) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for side, sample, span in zip(found.sides, difference.pair, difference.spans, strict=True):
        grid.add_row(side.name, _window(side, sample, span))
    return grid


def _window(side: Side, sample: Sample, span: Span) -> "Text":
    from rich.text import Text

    text = Text()
    for token in _tokens(side, sample, span):
        style = TRAINED if token["trained"] else MASKED
        shown = token["text"].replace("\n", "\u23ce").replace(" ", "\u00b7")
        text.append(shown, style=f"{style} {DIFFERENT}" if token["differs"] else style)
    start, end = _bounds(sample, span)
    whole = Text("\u2026" if start else "", style=MASKED).append_text(text)
    whole.append("\u2026" if end < len(sample.ids) else "", style=MASKED)
    return whole if text else Text("(nothing)", style=MASKED)


def _bounds(sample: Sample, span: Span) -> Span:
    end = min(span.end, span.start + MOST) + BEHIND
    return Span(max(span.start - BEFORE, 0), min(end, len(sample.ids)))


def _tokens(side: Side, sample: Sample, span: Span) -> Iterator[dict[str, Any]]:
    start, end = _bounds(sample, span)
    trained = sample.trained
    for place in range(start, end):
        token = int(sample.ids[place])
        yield {
            "text": side.token(token),
            "id": token,
            "trained": bool(trained[place]),
            "differs": span.start <= place < span.end,
        }


def _short(side: Side, sample: Sample) -> str:
    text = side.text(sample.ids.tolist()).replace("\n", "\u23ce")
    return text if len(text) <= 120 else "\u2026" + text[-119:]


def _missing(found: Comparison, side: Side, samples: list[Sample]) -> str:
    full = sum(len(sample.ids) >= side.limit - 1 for sample in samples) if side.limit else 0
    other = next(name for name in found.names if name != side.name)
    if full:
        return (
            f"{full:,} of them fill data.sequence_length: axolotl drops longer rows, llamafactory "
            "cuts them (with packing it drops them too)"
        )
    return f"{other} has left them out; its log of preprocessing says why"


def advice(found: Comparison, difference: Difference, recipe: Recipe) -> str:
    """How to make both sides equal, or that they cannot be."""
    known = TEMPLATES.get(recipe.data.chat_template)
    if difference.kind == "truncation":
        return "raise data.sequence_length, or leave such rows out: the backends cut differently"
    if recipe.data.tokenization == "backend":
        return "--set data.tokenization=common"
    if difference.kind == "masking" and recipe.data.train_on == "all":
        return "axolotl masks role headers even then; --set data.train_on=assistant"
    if known and known.differs:
        return f"--set data.chat_template=tokenizer, since {known.differs}"
    if recipe.data.chat_template != "tokenizer":
        return "--set data.chat_template=tokenizer, the model's own template on both"
    return "none is known; the backends read these rows differently"


def document(found: Comparison, recipe: Recipe) -> dict[str, Any]:
    """The JSON document.

    `summary` counts rows (`identical`, `other_labels`: the same ids, `other_ids`, `only` by
    backend, `kinds` of the first differences); `differences` has one entry per row shown: `kind`,
    `message`, `fix`, and per backend the row's number, the first token that differs, and a window
    of tokens; `only` lists the numbers of rows that one backend has alone.
    """
    return {
        "version": 1,
        "equal": found.equal,
        "summary": {
            "rows": {side.name: len(side.samples) for side in found.sides},
            "identical": found.identical,
            "other_labels": found.other_labels,
            "other_ids": found.other_ids,
            "only": {n: len(s) for n, s in zip(found.names, found.only, strict=True)},
            "kinds": dict(found.kinds),
        },
        "differences": [_entry(found, difference, recipe) for difference in found.differences],
        "only": {
            name: [sample.row for sample in samples]
            for name, samples in zip(found.names, found.only, strict=True)
        },
    }


def _entry(found: Comparison, difference: Difference, recipe: Recipe) -> dict[str, Any]:
    return {
        "kind": difference.kind,
        "part": difference.pair[0].part,
        "message": difference.message,
        "fix": advice(found, difference, recipe),
        "sides": {
            side.name: {
                "row": sample.row,
                "length": len(sample.ids),
                "start": span.start,
                "end": span.end,
                "tokens": list(_tokens(side, sample, span)),
            }
            for side, sample, span in zip(
                found.sides, difference.pair, difference.spans, strict=True
            )
        },
    }
