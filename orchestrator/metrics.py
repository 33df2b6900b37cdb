"""Training metrics from `events.jsonl`, while it grows and afterwards."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Tail:
    """Reads the lines that were appended to a file since the last look."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self.position = path.stat().st_size if from_end and path.exists() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """New complete lines that hold a JSON object."""
        try:
            with self.path.open("rb") as handle:
                handle.seek(self.position)
                chunk = handle.read()
        except OSError:
            return
        end = chunk.rfind(b"\n") + 1
        self.position += end
        for line in chunk[:end].splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


@dataclass
class Training:
    """How training goes, from its events. Losses are per optimizer step logged."""

    step: int = 0
    max_steps: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    eval_loss: float | None = None
    world_size: int | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)
    rewarded: bool = False
    """It learns from rewards: as long as all answers get the same one, its loss is 0."""

    def take(self, event: dict[str, Any]) -> bool:
        """Take one event in; whether it was about training."""
        kind = event.get("event")
        if kind not in ("train_begin", "log", "evaluate", "save", "train_end"):
            return False
        self.step = int(event.get("step") or self.step)
        self.max_steps = int(event.get("max_steps") or self.max_steps)
        self.world_size = event.get("world_size") or self.world_size
        metrics = event.get("metrics") or {}
        loss = event.get("loss")
        if kind == "log" and isinstance(loss, (int, float)):
            self.loss = float(loss)
            while self.losses and self.losses[-1][0] >= self.step:  # resumed from a checkpoint
                self.losses.pop()
            self.losses.append((self.step, self.loss))
        for name in ("learning_rate", "tokens_per_second"):
            if isinstance(event.get(name), (int, float)):
                setattr(self, name, float(event[name]))
        if isinstance(metrics.get("eval_loss"), (int, float)):
            self.eval_loss = float(metrics["eval_loss"])
        return True

    @property
    def hopeless(self) -> str:
        """Why going on makes no sense: three losses in a row that are nan or exactly 0."""
        last = [loss for _, loss in self.losses[-3:]]
        if len(last) == 3 and all(math.isnan(loss) or math.isinf(loss) for loss in last):
            return "the loss is not a number"
        if len(last) == 3 and all(loss == 0 for loss in last) and not self.rewarded:
            return "the loss is exactly 0"
        return ""

    def change(self) -> tuple[float, float] | None:
        """Mean loss of the first and of the last quarter of the logged steps."""
        values = [loss for _, loss in self.losses]
        if len(values) < 4:
            return None
        part = max(1, len(values) // 4)
        return sum(values[:part]) / part, sum(values[-part:]) / part


def read_training(events: Path) -> Training:
    """The training of a finished run."""
    training = Training()
    for event in Tail(events).read():
        training.take(event)
    return training
