"""`run.json`: what is true of a run, written atomically at every change.

It says what an `ft` knew last, and that may have been killed since. So it is never believed alone:
a stage is done if its marker says so, and a run is `running` only while the run's lock is held; one
that says `running` without it was killed, and is shown as `died`.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import LaunchError, UsageError
from orchestrator.files import read_json, unwritable, write_json
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.lock import is_locked

Status = Literal[
    "queued", "waiting", "running", "done", "failed", "interrupted", "died", "cancelled", "timeout"
]


def now() -> str:
    """The time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


STAMP = "%Y%m%d-%H%M%S"


def new_layout(directory: Path, name: str) -> RunLayout:
    """A new run's folder under `directory`, created here and nowhere else."""
    root = directory.resolve() / f"{_stamp(directory)}-{name}-{secrets.token_hex(3)}"
    try:
        root.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(
            f"cannot make a run folder in {directory}: {error.strerror}",
            hint="--set output.directory=... names another place",
        ) from error
    return RunLayout(root)


def _stamp(directory: Path) -> str:
    """The time for a run's name, but later than any run's there.

    Names are the order of runs, and `latest` the last of them: also when the clock was set back,
    and for two runs of the same second.
    """
    stamps = [
        found.group()
        for root in (directory.iterdir() if directory.is_dir() else ())
        if (found := re.match(r"\d{8}-\d{6}(?=-)", root.name))
    ]
    newest = max(stamps, default="")
    stamp = time.strftime(STAMP)
    if stamp > newest:
        return stamp
    with contextlib.suppress(ValueError, OverflowError):  # a name that is no time
        return (datetime.strptime(newest, STAMP) + timedelta(seconds=1)).strftime(STAMP)
    return stamp


@dataclass
class Record:
    """The record of one run, in memory and on disk."""

    layout: RunLayout
    document: dict[str, Any]
    recovered: bool = False

    def update(self, **values: Any) -> None:
        """Set top-level values and write."""
        self.document |= values
        self._write()

    def stage(self, name: str, **values: Any) -> None:
        """Set values of a stage and write."""
        stages = self.document.setdefault("stages", {})
        stages[name] = {**stages.get(name, {}), **values}
        self._write()

    def _write(self) -> None:
        """Write, and keep what was there before: should the file be lost, little is."""
        record, before = self.layout.record, self.layout.record_before
        if not self.recovered:
            with contextlib.suppress(OSError):  # there is none yet, or nothing can be linked
                before.unlink(missing_ok=True)
                os.link(record, before)
        write_json(record, self.document)
        self.recovered = False

    def reread(self) -> None:
        """Take what is on disk now; only who holds the lock may build on what was read."""
        self.document = open_record(self.layout.root).document

    def event(self, event: str, **values: Any) -> None:
        """Append a line to `events.jsonl`; one write, so that lines never mix.

        A line that was cut short, by a kill or a full disk, does not take the next along.

        Raises:
            LaunchError: the file cannot be written.
        """
        line = json.dumps({"t": round(time.time(), 3), "event": event, **values}) + "\n"
        try:
            with self.layout.events.open("a+b") as handle:
                if handle.seek(0, os.SEEK_END):
                    handle.seek(-1, os.SEEK_END)
                    line = line if handle.read(1) == b"\n" else f"\n{line}"
                handle.write(line.encode())
        except OSError as error:
            raise unwritable(error, self.layout.events) from error

    @property
    def elsewhere(self) -> str:
        """The host that works on the run, or did, if it is another than this; else empty."""
        host = str(self.document.get("host") or "")
        running = self.document.get("status") == "running"
        return host if running and host != socket.gethostname() else ""

    @property
    def status(self) -> Status:
        """The status as it is now."""
        status: Status = self.document.get("status", "failed")
        if status != "running" or is_locked(self.layout):
            return status
        written = read_json(self.layout.record)  # it may have ended since it was read
        if isinstance(written, dict) and written.get("status") != "running":
            self.document = believing_markers(written, self.layout)
            return self.document.get("status", "failed")  # type: ignore[no-any-return]
        if self.elsewhere:  # whose lock may not reach us
            return "running"
        stages = self.document.get("stages", {}).values()
        return "done" if stages and all(s.get("status") == "done" for s in stages) else "died"


def believing_markers(document: dict[str, Any], layout: RunLayout) -> dict[str, Any]:
    """The record with what the markers of its stages say: `ft` may have died between the two."""
    stages = {}
    for name, stage in document.get("stages", {}).items():
        done = stage.get("status") == "done"
        if layout.marker(name).is_file() == done:
            stages[name] = stage
        elif done:
            stages[name] = {"status": "waiting"}
        else:
            marker = read_json(layout.marker(name)) or {}
            known = {key: marker[key] for key in ("seconds", "facts") if key in marker}
            kept = {key: value for key, value in stage.items() if key != "error"}
            stages[name] = {**kept, "status": "done", **known}
    return {**document, "stages": stages} if stages else document


def open_record(root: Path) -> Record:
    """The record of an existing run; a broken one is put together again from what else is known.

    Raises:
        UsageError: the folder is no run, or nothing of its record is left.
    """
    layout = RunLayout(root.resolve())
    document = read_json(layout.record)
    recovered = not _is_record(document)
    if recovered:
        document = read_json(layout.record_before)
    if not _is_record(document):
        if layout.root.exists() and not os.access(layout.root, os.R_OK | os.X_OK):
            raise UsageError(
                f"the run {layout.root} cannot be read: permission denied",
                hint=f"it is {_owner(layout.root)}'s, who can open it to you with chmod",
            )
        if layout.record.is_file():
            raise UsageError(
                f"the record {layout.record} cannot be read",
                hint="start a new run from its recipe.yaml; what it has made is still there",
            )
        raise UsageError(f"{root} is not the folder of a run", hint="`ft runs list` shows runs")
    return Record(layout, believing_markers(document, layout), recovered)


def _is_record(document: Any) -> bool:
    """Whether it is of a shape that can be worked with, whichever ft wrote it."""
    stages = document.get("stages", {}) if isinstance(document, dict) else None
    return isinstance(stages, dict) and all(isinstance(s, dict) for s in stages.values())


def _owner(root: Path) -> str:
    try:
        return root.owner()
    except (KeyError, OSError):  # a user whom this system does not know
        return "another user"


def find_run(name: str, directory: Path) -> Path | None:
    """A run by path, by folder name or by the end of its name (its id); None if there is none.

    Raises:
        UsageError: several end so.
    """
    path = Path(name)
    if _is_run(path):
        return path.resolve()
    if _is_run(directory / name):
        return (directory / name).resolve()
    roots = run_folders(directory)
    if name == "latest":
        matches = [root for root in roots if os.access(root, os.R_OK | os.X_OK)][-1:]
    else:
        matches = [root for root in roots if root.name.endswith(f"-{name}")]
    if len(matches) > 1:
        raise UsageError(
            f"several runs end with {name!r}: {', '.join(root.name for root in matches)}",
            hint="name one of them in full",
        )
    return matches[0].resolve() if matches else None


def run_folders(directory: Path) -> list[Path]:
    """All runs in a folder, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(root for root in directory.iterdir() if _is_run(root))


def _is_run(root: Path) -> bool:
    layout = RunLayout(root)
    try:
        return layout.record.is_file() or layout.record_before.is_file()
    except PermissionError:  # somebody else's: by its name
        return bool(re.match(r"\d{8}-\d{6}-", root.name))


def readable_runs(directory: Path) -> Iterator[Record]:
    """The records in a folder, oldest first; a broken one is left to `ft runs list`."""
    for folder in run_folders(directory):
        with contextlib.suppress(UsageError, LaunchError):
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
