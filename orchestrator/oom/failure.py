"""A stage's process that memory has ended, as the error of it."""

from pathlib import Path
from typing import Any

from orchestrator import shell
from orchestrator.oom import kills
from orchestrator.oom.advice import elsewhere
from orchestrator.oom.kills import Kills
from orchestrator.oom.shortage import OutOfMemory, recognise


def of_process(
    stage: str, done: shell.Completed, answer: Any, log: Path, *, since: int, before: Kills
) -> OutOfMemory | None:
    """The error of a process that has failed; None if memory was not the cause.

    `since` is where its part of the log begins, `before` what the kernel had counted by then.
    """
    said = answer.get("error", {}) if isinstance(answer, dict) else {}
    text = shell.last_lines(log, 2000, since=since)
    text = f"{said.get('type', '')}: {said.get('message', '')}\n{text}"
    killed = kills.counted().since(before)
    shortage = recognise(text, done.exit_code, kills=killed, limit=kills.limit())
    if shortage is None:
        return None
    ways = "" if stage == "train" else f"{elsewhere(shortage.kind)}\n"
    hint = f"{ways}whole log: {log}"
    return OutOfMemory(f"{stage}: {shortage.text}", shortage, hint=hint, detail=done.tail)
