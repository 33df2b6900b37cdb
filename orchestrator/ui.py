"""The only place that prints.

People get text on a terminal (results on stdout, everything else on stderr), programs get one
JSON document on stdout. `rich` is imported on first use, since `ft --help` must be quick.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from orchestrator.errors import FtError
    from orchestrator.findings import Finding


class Lasting:
    """stderr on which nothing fails: what goes on matters more than that it is shown.

    Its disk may be full, or its terminal gone, hours after a run was started.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write if it can be."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if it can be."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Screen:
    """Where output goes; `json_mode` silences everything but the one document."""

    def __init__(self) -> None:
        self.json_mode = False
        self._out: Console | None = None
        self._err: Console | None = None

    @property
    def out(self) -> "Console":
        """Console for results, on stdout."""
        if self._out is None:
            from rich.console import Console

            self._out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        return self._out

    @property
    def err(self) -> "Console":
        """Console for progress, notes and errors, on stderr."""
        if self._err is None:
            from rich.console import Console

            self._err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        return self._err


screen = Screen()


def say(message: "RenderableType") -> None:
    """A result for people; nothing in JSON mode."""
    if screen.json_mode:
        return
    if isinstance(message, str):
        raw(message)
    else:
        screen.out.print(message)


def raw(text: str) -> None:
    """Text that must reach stdout byte for byte (YAML, JSON Schema)."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def say_styled(markup: str, *plain: str) -> None:
    """A result in rich's markup; each `{}` in it is filled with text that is none."""
    from rich.markup import escape
    from rich.text import Text

    say(Text.from_markup(markup.format(*map(escape, plain))))


def note(message: str, style: str = "") -> None:
    """A line about what goes on, on stderr."""
    from rich.text import Text

    screen.err.print(Text(message, style=style))


def emit(document: Any) -> None:
    """The one JSON document of `--json`."""
    raw(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def table(
    columns: Sequence[str], rows: Iterable[Sequence["RenderableType"]], title: str = ""
) -> None:
    """A table for people: nothing is cut off, and only a terminal's width breaks lines.

    A text in it is no markup, whoever wrote it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in grid.columns:
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if screen.out.is_terminal:
        say(grid)
    elif not screen.json_mode:
        Console(highlight=False, width=UNLIMITED).print(grid)


UNLIMITED = 10_000
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show_findings(findings: Iterable["Finding"]) -> None:
    """Findings on stderr, one line each and the fix below it."""
    for finding in findings:
        if not sys.stderr.isatty():
            sys.stderr.write(f"{finding}\n")
            continue
        from rich.text import Text

        start = f"{finding.place}: " if finding.place else ""
        line = Text(start)
        line.append(f"{finding.level}[{finding.code}]", style=STYLES[finding.level])
        line.append(f": {finding.message}")
        if finding.fix:
            line.append(f"\n    fix: {finding.fix}", style="dim")
        screen.err.print(line)


def show_error(error: "FtError") -> None:
    """An error on stderr: where, what, the quoted detail, how to fix it."""
    from rich.text import Text

    text = Text(f"{error.where}: " if error.where else "")
    text.append("error", style="bold red")
    text.append(f": {error.message}")
    if error.detail:
        quoted = "\n".join(f"    {line}" for line in error.detail.splitlines())
        text.append(f"\n{quoted}", style="dim")
    if error.hint:
        text.append(f"\nhow to fix: {error.hint}")
    screen.err.print(text)


@contextmanager
def progress(*, transient: bool = False) -> Iterator["Progress"]:
    """A progress display on stderr; without a terminal it only stays silent."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        console=screen.err,
        transient=transient,
        disable=not screen.err.is_terminal,
    ) as bar:
        yield bar


@contextmanager
def reading(patience: float = 0.5) -> Iterator[Callable[[str, int, int], None]]:
    """A function to tell how far a file is read, which shows a bar once it has taken a while.

    Nothing is shown, and `rich` is not imported, before `patience` seconds or without a terminal.
    """
    started, bar, tasks = time.monotonic(), None, dict[str, Any]()

    def tell(name: str, done: int, size: int) -> None:
        nonlocal bar
        if bar is None:
            if time.monotonic() - started < patience or not sys.stderr.isatty():
                return
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            bar = Progress(
                TextColumn("reading {task.description}", markup=False),
                BarColumn(bar_width=24),
                DownloadColumn(),
                console=screen.err,
                transient=True,
            )
            bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=size)
        bar.update(tasks[name], completed=done)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.stop()
