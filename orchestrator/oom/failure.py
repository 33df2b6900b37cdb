"""A stage's process that memory has ended, as the error of it."""

from pathlib import Path

from orchestrator import shell
from orchestrator.last_words import LastWords
from orchestrator.oom import kills
from orchestrator.oom.advice import elsewhere
from orchestrator.oom.kills import Kills
from orchestrator.oom.shortage import OutOfMemory, recognise


def of_process(
    stage: str, done: shell.Completed, words: LastWords, log: Path, *, before: Kills
) -> OutOfMemory | None:
    """The error of a process that has failed; None if memory was not the cause.

    `before` is what the kernel had counted when it was started.
    """
    killed = kills.counted().since(before)
    shortage = recognise(words.evidence, done.exit_code, kills=killed, limit=kills.limit())
    if shortage is None:
        return None
    ways = "" if stage == "train" else f"{elsewhere(shortage.kind)}\n"
    if shortage.amounts.others:
        ways += "end the other programs on this GPU (`nvidia-smi` lists them)\n"
    hint = f"{ways}whole log: {log}"
    return OutOfMemory(f"{stage}: {shortage.text}", shortage, hint=hint, detail=done.tail)
