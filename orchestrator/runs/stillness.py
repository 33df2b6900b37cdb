"""A training that gives no sign of life: said beside its own pace, and nothing is ended for it.

Ranks that wait for each other in vain, a stuck file server, a loader that hangs: from outside all
look alike. A sign is a training event, or a word in the log, where both backends draw a bar for
every step and every evaluated batch.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.metrics import Training
from orchestrator.progress import duration
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record

FLOOR = 600.0
"""Seconds without a sign that are never worth a word: a model is loaded, a kernel is compiled."""
FACTOR = 3.0
"""How much longer than any pause before it must be: evaluations and checkpoints are among those."""
RECENT = 1 << 18
"""Bytes of events that the pace is taken from."""


@dataclass(frozen=True, slots=True)
class Still:
    """Seconds without a sign, the longest pause before, the step that was reached."""

    seconds: float
    longest: float
    step: int
    max_steps: int

    @property
    def text(self) -> str:
        """In words."""
        at = f"at step {self.step} of {self.max_steps}" if self.step else "before the first step"
        usual = f", where {duration(self.longest)} was the longest pause" if self.longest else ""
        return f"no sign of progress for {duration(self.seconds)} {at}{usual}"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"seconds": round(self.seconds), "longest_pause": round(self.longest),
                "step": self.step, "max_steps": self.max_steps}  # fmt: skip


def too_long(seconds: float, longest: float) -> bool:
    """Whether a pause is long beside those before it."""
    return seconds > max(FLOOR, FACTOR * longest)


def of(record: Record) -> Still | None:
    """What is to be said of a run that is at work; None while it trains as it did.

    Its `ft` renews the lock's time as long as it lives, so no clock of this machine matters.
    """
    layout = record.layout
    if record.document.get("stages", {}).get("train", {}).get("status") != "running":
        return None
    signs = [_changed(file) for file in (layout.events, layout.log("train"))]
    seconds = _changed(layout.lock) - max(signs)
    if seconds < FLOOR:
        return None
    training, longest = _pace(layout)
    if not too_long(seconds, longest):
        return None
    return Still(seconds, longest, training.step, training.max_steps)


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _pace(layout: RunLayout) -> tuple[Training, float]:
    """The training by its latest events, and the longest pause between two of one process."""
    training, longest, last = Training(), 0.0, 0.0
    for line in _last_events(layout.events).splitlines():
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            event = json.loads(line)
            if not training.take(event):
                continue
            moment = float(event["t"])
            if last and event["event"] != "train_begin":
                longest = max(longest, moment - last)
            last = moment
    return training, longest


def _last_events(file: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - RECENT))
            return handle.read()
    except OSError:
        return b""


class Watch:
    """The same for the `ft` that follows a training: it says it once for each pause."""

    def __init__(self, log: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.log, self.clock = log, clock
        self.size = 0
        self.sign = self.event = clock()
        self.longest = 0.0
        self.told = False

    def look(self, training: Training, *, events: bool) -> str:
        """What is to be said now, mostly nothing; `events`: some came since the last look."""
        now, size = self.clock(), self._written()
        if events:
            self.longest = max(self.longest, now - self.event)
            self.event = now
        if events or size != self.size:
            self.size, self.sign, self.told = size, now, False
        if self.told or not too_long(now - self.sign, self.longest):
            return ""
        self.told = True
        return Still(now - self.sign, self.longest, training.step, training.max_steps).text

    def _written(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0
