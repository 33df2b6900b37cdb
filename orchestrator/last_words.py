"""What a failed process has said of its own failure.

A log holds many words that are no cause: training data, warnings about what was recovered, lines of
code in a traceback. So the exception that ended the process is asked first. The log is asked where
there is none, or where it only says that another process has ended.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import shell
from orchestrator.launchers.elastic import FirstFailure, first_failure

LINES, BYTES = 2000, 4 << 20
"""How far back a log is read: many ranks that fail print much behind the first one's error."""

PASSED_ON = re.compile(
    r"NCCL|[Gg]loo|DistBackendError|DistNetworkError|DistStoreError|Connection (?:closed|reset)|"
    r"Broken ?[Pp]ipe|BrokenProcessPool|EOFError|ConnectionResetError|abruptly|exited unexpectedly|"
    r"DataLoader worker|SystemExit|The look at all processes failed"
)
"""What an exception says that another process, or a library's own output, is the cause of."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """The exception that ended a process (of several, rank 0), if any; the end of its log."""

    kind: str
    message: str
    hint: str
    trace: str
    log: str
    first: FirstFailure | None

    @property
    def evidence(self) -> str:
        """The text in which the cause is to be looked for."""
        if not self.kind:
            return self.log
        own = f"{self.kind}: {self.message}\n{self.trace}"
        said = "\n".join(line for line in own.splitlines() if not line.startswith(" "))
        return f"{own}\n{self.log}" if PASSED_ON.search(said) else own


def of_process(answer: Any, log: Path, *, since: int) -> LastWords:
    """From its answer and its part of the log, which begins at `since`."""
    said = answer.get("error") if isinstance(answer, dict) else None
    text = shell.last_lines(log, LINES, width=4000, since=since, size=BYTES)
    first = first_failure(text)
    if not isinstance(said, dict) or (first and first.rank):
        said = {}  # rank 0 was not the first: it only lost its connection
    kind, message, hint, trace = (
        str(said.get(name) or "") for name in ("type", "message", "hint", "traceback")
    )
    return LastWords(kind, message, hint, trace, text, first)
