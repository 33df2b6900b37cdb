"""`run.json`: what is true of a run, written atomically at every change.

A run is `running` only while the `ft` that works on it holds the run's lock; a record that says
`running` without one was killed, and is shown as `died`.
"""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import LaunchError, UsageError
from orchestrator.files import read_json, write_json
from orchestrator.runs.layout import RunLayout

Status = Literal[
    "queued", "waiting", "running", "done", "failed", "interrupted", "died", "cancelled", "timeout"
]


def now() -> str:
    """The time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def new_layout(directory: Path, name: str) -> RunLayout:
    """A new run's folder under `directory`, created here and nowhere else."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    root = directory.resolve() / f"{stamp}-{name}-{secrets.token_hex(3)}"
    try:
        root.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(
            f"cannot make a run folder in {directory}: {error.strerror}",
            hint="--set output.directory=... names another place",
        ) from error
    return RunLayout(root)


@dataclass
class Record:
    """The record of one run, in memory and on disk."""

    layout: RunLayout
    document: dict[str, Any]

    def update(self, **values: Any) -> None:
        """Set top-level values and write."""
        self.document |= values
        write_json(self.layout.record, self.document)

    def stage(self, name: str, **values: Any) -> None:
        """Set values of a stage and write."""
        stages = self.document.setdefault("stages", {})
        stages[name] = {**stages.get(name, {}), **values}
        write_json(self.layout.record, self.document)

    def event(self, event: str, **values: Any) -> None:
        """Append a line to `events.jsonl`; one write, so that lines never mix."""
        line = json.dumps({"t": round(time.time(), 3), "event": event, **values}) + "\n"
        with self.layout.events.open("ab") as handle:
            handle.write(line.encode())

    @property
    def status(self) -> Status:
        """The status as it is now."""
        status: Status = self.document.get("status", "failed")
        if status == "running" and not is_locked(self.layout):
            return "died"
        return status


def open_record(root: Path) -> Record:
    """The record of an existing run.

    Raises:
        UsageError: the folder is no run.
    """
    layout = RunLayout(root.resolve())
    document = read_json(layout.record)
    if not isinstance(document, dict):
        raise UsageError(f"{root} is not the folder of a run", hint="`ft runs list` shows runs")
    return Record(layout, document)


def is_locked(layout: RunLayout) -> bool:
    """Whether some `ft` works on the run now."""
    try:
        descriptor = os.open(layout.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock; the system releases it however we end.

    Raises:
        LaunchError: another `ft` works on this run.
    """
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LaunchError(
            f"another ft works on {layout.id}", hint="wait for it, or start a new run"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def find_run(name: str, directory: Path) -> Path | None:
    """A run by path, by folder name or by the end of its name (its id); None if there is none."""
    path = Path(name)
    if (path / "run.json").is_file():
        return path.resolve()
    matches = [root for root in run_folders(directory) if root.name == name]
    matches = matches or [r for r in run_folders(directory) if r.name.endswith(f"-{name}")]
    if name == "latest":
        matches = run_folders(directory)[-1:]
    return matches[0].resolve() if matches else None


def run_folders(directory: Path) -> list[Path]:
    """All runs in a folder, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(root for root in directory.iterdir() if (root / "run.json").is_file())


def readable_runs(directory: Path) -> Iterator[Record]:
    """The records in a folder, oldest first; a broken one is left to `ft runs list`."""
    for folder in run_folders(directory):
        with contextlib.suppress(UsageError):
            yield open_record(folder)


def summary(record: Record) -> Mapping[str, Any]:
    """One line of `ft runs list`."""
    document = record.document
    stages = document.get("stages", {})
    facts = stages.get("train", {}).get("facts") or {}
    last = next((n for n, s in reversed(stages.items()) if s.get("status") != "waiting"), "")
    return {
        "id": record.layout.id,
        "path": str(record.layout.root),
        "status": record.status,
        "recipe": document.get("recipe", ""),
        "backend": document.get("backend", ""),
        "started": document.get("started", ""),
        "seconds": document.get("seconds"),
        "stage": last,
        "loss": (facts.get("loss") or {}).get("last"),
    }
