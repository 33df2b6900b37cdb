"""What a stage shows while it runs, on a terminal and in a log file."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orchestrator import ui
from orchestrator.metrics import Training
from orchestrator.plan import Stage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY = 15.0


def duration(seconds: float) -> str:
    """`95` as `1:35`, `3700` as `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def numbers(training: Training) -> str:
    """The metrics of the moment in one line."""
    parts = []
    if training.loss is not None:
        parts.append(f"loss {training.loss:.3f}")
    if training.learning_rate is not None:
        parts.append(f"lr {training.learning_rate:.2e}")
    if training.tokens_per_second:
        parts.append(f"{training.tokens_per_second:,.0f} tok/s")
    if training.eval_loss is not None:
        parts.append(f"eval {training.eval_loss:.3f}")
    return "  ".join(parts)


class StageDisplay:
    """One line per stage: live while it runs, a summary when it is done."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.first: tuple[int, float] | None = None
        self.printed = time.monotonic()

    def __enter__(self) -> "StageDisplay":
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if not ui.screen.err.is_terminal:
            ui.note(f"{self.stage.name}: {self.stage.summary} ...")
            return self
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<10}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=ui.screen.err,
            transient=True,
        )
        self.bar.start()
        self.task = self.bar.add_task(
            self.stage.summary, total=None, stage=self.stage.name, detail=""
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()
        if error is not None:
            self._line("✘", "bold red", "")

    def say(self, text: str) -> None:
        """What the stage does right now."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, description=text)
        else:
            self.tell(text)

    def tell(self, text: str) -> None:
        """A line that stays."""
        ui.note(f"{self.stage.name}: {text}")

    def training(self, training: Training) -> None:
        """Live progress of training."""
        if self.first is None and training.step:
            self.first = (training.step, time.monotonic())
        left = ""
        if self.first and training.step > self.first[0]:
            pace = (time.monotonic() - self.first[1]) / (training.step - self.first[0])
            left = f"  {duration(pace * (training.max_steps - training.step))} left"
        text = f"step {training.step}/{training.max_steps}  {numbers(training)}{left}"
        if self.bar and self.task is not None:
            self.bar.update(
                self.task,
                description="",
                total=training.max_steps or None,
                completed=training.step,
                detail=text,
            )
        elif time.monotonic() - self.printed > PLAIN_EVERY:
            self.printed = time.monotonic()
            ui.note(f"train: {text}")

    def done(self, seconds: float, facts: dict[str, Any]) -> None:
        """The stage has ended well."""
        if self.bar:
            self.bar.stop()
        self._line("✔", "green", f"{seconds:6.1f} s  {facts.get('summary', '')}")

    def skipped(self, why: str, facts: dict[str, Any]) -> None:
        """The stage need not run."""
        self._line("•", "dim", f"{why}  {facts.get('summary', '')}")

    def _line(self, mark: str, style: str, text: str) -> None:
        from rich.text import Text

        line = Text(f"{mark} ", style=style)
        line.append(f"{self.stage.name:<10} ", style="bold")
        line.append(text)
        ui.screen.err.print(line)
