"""What a row must be, by its format: one function per source, with all names looked up once."""

from collections.abc import Callable
from typing import Any

from orchestrator.data_check.conversation import Conversation
from orchestrator.data_check.tally import Tally
from orchestrator.recipe.models import ColumnRole, Recipe, Source, column

Row = dict[str, Any]
Rule = Callable[[Row], None]
Part = Callable[[Row], None]


def row_rule(recipe: Recipe, source: Source, tally: Tally) -> Rule:
    """The function that checks one row of `source`."""
    parts = [part for part in _parts(recipe, source, tally) if part is not _nothing]
    if len(parts) == 1:
        return parts[0]

    def rule(row: Row) -> None:
        for part in parts:
            part(row)

    return rule


def _nothing(row: Row) -> None:
    """The rule for a column that the recipe does not name."""


def _parts(recipe: Recipe, source: Source, tally: Tally) -> list[Part]:
    match source.format:
        case "alpaca":
            parts = [
                _text(source, "instruction", tally),
                _text(source, "output", tally, answer=True),
            ]
            # llamafactory 0.9.5 looks every column up that its data set info names
            needed = recipe.backend == "llamafactory"
            parts.append(_optional_text(source, "input", tally, needed=needed))
            return [*parts, _optional_text(source, "system", tally)]
        case "text":
            return [_text(source, "text", tally, answer=True)]
        case "messages" | "sharegpt":
            turns = Conversation(recipe, source, tally)
            return [_messages(source, tally, turns), _optional_text(source, "system", tally)]
        case "preference":
            return _preference(recipe, source, tally)
        case "kto":
            return [
                _text(source, "prompt", tally),
                _text(source, "completion", tally, answer=True),
                _label(source, tally),
            ]
        case "pieces":
            return [_pieces(source, tally)]
        case _:  # custom: only the backend's own handler knows
            return []


class _Column:
    """Looks one column up, and tallies that it is missing or null."""

    def __init__(self, source: Source, role: ColumnRole, tally: Tally) -> None:
        self.name = column(source, role) or role
        self.role = role
        self.tally = tally

    def __call__(self, row: Row) -> Any:
        value = row.get(self.name)
        if value is not None:
            return value
        if self.name in row:
            self.tally.add("FT305", f"{self.name!r} is null")
            return None
        there = ", ".join(str(key)[:40] for key in list(row)[:8])
        self.tally.add(
            "FT304",
            f"column {self.name!r} ({self.role}) is missing; the row has: {there}",
            f"name it in the recipe: columns: {{{self.role}: ...}}",
        )
        return None


def _text(source: Source, role: ColumnRole, tally: Tally, *, answer: bool = False) -> Part:
    read, name = _Column(source, role, tally), column(source, role)

    def part(row: Row) -> None:
        value = read(row)
        if isinstance(value, str):
            if answer and not value.strip():
                tally.add("FT306", f"{name!r} is empty: nothing to learn")
        elif value is not None:
            tally.add("FT305", f"{name!r} must be text, not {type(value).__name__}")

    return part


def _optional_text(source: Source, role: ColumnRole, tally: Tally, *, needed: bool = False) -> Part:
    name = column(source, role)
    if not name:
        return _nothing

    def part(row: Row) -> None:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            tally.add("FT305", f"{name!r} must be text, not {type(value).__name__}")
        elif needed and value is None and name not in row:
            tally.add(
                "FT304",
                f"column {name!r} ({role}) is missing in a row: llamafactory looks it up in each",
                f'add "{name}": "" to the rows',
            )

    return part


def _messages(source: Source, tally: Tally, turns: Conversation) -> Part:
    read = _Column(source, "messages", tally)

    def part(row: Row) -> None:
        value = read(row)
        if value is not None:
            turns.check(value, f"{read.name!r} must be a list of messages")

    return part


def _pieces(source: Source, tally: Tally) -> Part:
    """Pieces of text, each with whether it is learned."""
    read = _Column(source, "messages", tally)

    def sound(piece: Any) -> bool:
        return (
            isinstance(piece, dict)
            and isinstance(piece.get("text"), str)
            and isinstance(piece.get("label"), bool)
        )

    def part(row: Row) -> None:
        value = read(row)
        if value is None:
            return
        if not isinstance(value, list) or not all(sound(piece) for piece in value):
            tally.add("FT305", f"{read.name!r} must be a list of {{text: ..., label: true|false}}")
        elif not any(piece["label"] and piece["text"] for piece in value):
            tally.add("FT306", f"{read.name!r} has no piece to learn")

    return part


def _label(source: Source, tally: Tally) -> Part:
    read = _Column(source, "label", tally)

    def part(row: Row) -> None:
        value = read(row)
        if value is not None and not isinstance(value, bool):
            tally.add("FT305", f"{read.name!r} must be true or false")

    return part


def _preference(recipe: Recipe, source: Source, tally: Tally) -> list[Part]:
    turns = Conversation(recipe, source, tally, prompt=True)
    chosen, rejected = (_Column(source, role, tally) for role in ("chosen", "rejected"))

    def answers(row: Row) -> None:
        good, bad = chosen(row), rejected(row)
        for read, value in ((chosen, good), (rejected, bad)):
            if value is not None:
                turns.answer(value, f"{read.name!r}")
        if good is not None and good == bad:
            tally.add(
                "FT310", "chosen and rejected are the same: nothing to prefer", level="warning"
            )

    return [_messages(source, tally, turns), answers]
