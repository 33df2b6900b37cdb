"""Findings: what a check has to say about a recipe, its data or its labels.

A finding has a stable code (`FT101`), a level, a place, and how to fix it. Checks yield findings
and never stop at the first one; the caller shows all of them at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.errors import Exit, FtError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; lines and columns count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return (
            f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    `field` is the dotted path in the recipe (`training.learning_rate`) when the finding is about
    one; `fix` is one sentence, or a `--set` that does it.
    """

    code: str
    level: Level
    message: str
    place: Place | None = None
    field: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form that `--json` prints."""
        place = self.place
        return {
            "code": self.code,
            "level": self.level,
            "message": self.message,
            "field": self.field,
            "fix": self.fix,
            "file": place.file if place else None,
            "line": place.line or None if place else None,
            "column": place.column or None if place else None,
        }

    def __str__(self) -> str:
        start = f"{self.place}: " if self.place else ""
        text = f"{start}{self.level}[{self.code}]: {self.message}"
        return f"{text}\n    fix: {self.fix}" if self.fix else text


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Only the findings that forbid a run."""
    return [finding for finding in findings if finding.level == "error"]


class RecipeError(FtError):
    """A recipe (or another file of the user's, `what`) with everything that is wrong with it."""

    exit_code = Exit.USAGE

    def __init__(
        self,
        findings: Iterable[Finding],
        *,
        exit_code: Exit = Exit.USAGE,
        what: str = "the recipe",
    ) -> None:
        self.findings = tuple(findings)
        self.exit_code = exit_code
        count = len(errors_of(self.findings))
        super().__init__(f"{count} error{'s' if count != 1 else ''} in {what}")
