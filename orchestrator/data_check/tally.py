"""Mistakes in rows, counted by kind: one finding each, with the first places."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.findings import Finding, Level, Place

SHOWN = 3
KINDS = 30


class Kind(NamedTuple):
    """What makes two mistakes the same one."""

    code: str
    level: Level
    message: str
    fix: str


@dataclass
class Tally:
    """Mistakes of one source. `row` is where the reader is: a line, or a row where none are.

    `raw` is the row as it was read, if the reader has it: a cheap way to know copies.
    """

    file: Path = Path()
    row: int = 0
    by_line: bool = True
    raw: bytes = b""
    places: dict[Kind, list[Place]] = field(default_factory=dict)
    counts: dict[Kind, int] = field(default_factory=dict)

    def add(self, code: str, message: str, fix: str = "", level: Level = "error") -> None:
        """Count a mistake in the current row."""
        kind = Kind(code, level, message, fix)
        if kind not in self.counts and len(self.counts) >= KINDS:
            kind = Kind(code, level, "further mistakes of other kinds", "")
        self.counts[kind] = self.counts.get(kind, 0) + 1
        places = self.places.setdefault(kind, [])
        if len(places) < SHOWN:
            places.append(self.place())

    def place(self) -> Place:
        """Where the reader is."""
        if self.by_line or not self.row:
            return Place(str(self.file), self.row)
        return Place(f"{self.file} (row {self.row})")

    def findings(self, name: str) -> Iterator[Finding]:
        """One finding per kind, for the field `name` of the recipe."""
        for kind, count in self.counts.items():
            first, *others = self.places[kind]
            more = ""
            if count > 1:
                lines = ", ".join(str(at.line) for at in others if at.line)
                also = f"; also lines {lines}{', ...' if count > SHOWN else ''}" if lines else ""
                more = f" ({count:,} rows{also})"
            message = f"{kind.message}{more}"
            yield Finding(kind.code, kind.level, message, first, field=name, fix=kind.fix)
