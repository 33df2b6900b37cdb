"""A backend that trains nothing, in an environment that `ft` takes for LLaMA-Factory's.

All of `ft` is real: its command line, processes, guards, locks, files. Only what runs inside the
environment is `program.py`, which writes what a backend would, in milliseconds, and does what it is
told to by a file: wait, fill the disk, leave children behind.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.yaml_out import dump
from tests.helpers import ROOT, Outcome, ft
from tests.label_world import world
from tests.standin.program import tensors

STEPS = 6


class Site:
    """A working folder with a recipe, a stand-in environment and an `$FT_HOME` of its own."""

    def __init__(self, folder: Path, runs: Path | None = None) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.runs = runs or self.work / "runs"
        self.prefix = folder / "prefix"
        self.home = folder / "home"
        self.environ = {"FT_HOME": str(self.home), "FT_LLAMAFACTORY_PREFIX": str(self.prefix)}
        subject = world(folder / "world")
        shutil.copytree(folder / "world" / "tokenizer", subject.base, dirs_exist_ok=True)
        tensors(Path(subject.base) / "model.safetensors", {"model.embed_tokens.weight": [300, 8]})
        python = self.prefix / "bin" / "python"
        python.parent.mkdir(parents=True)
        program = Path(__file__).with_name("program.py")
        python.write_text(
            f'#!/bin/sh\nFT_STANDIN="{folder}" exec {sys.executable} {program} "$@"\n'
        )
        python.chmod(0o755)
        self.orders_file = folder / "orders.json"
        self.order()
        source, base = subject.sources[0], subject.base
        self.recipe = self.work / "recipe.yaml"
        self.recipe.write_text(dump(_recipe(source, base, self.runs)))

    def order(self, **orders: Any) -> None:
        """Tell the stand-in what to do: `train={"wait_at": 3}`."""
        self.orders_file.write_text(json.dumps(orders))

    def ft(self, *arguments: str | Path) -> Outcome:
        """Run `ft` here."""
        return ft(*arguments, cwd=self.work, **self.environ)

    def run(self, *arguments: str | Path) -> Outcome:
        """`ft recipe run`, of the recipe if nothing else is named."""
        return self.ft("recipe", "run", *(arguments or (self.recipe,)))

    @contextlib.contextmanager
    def started(self, *arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
        """Start `ft` here, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", *map(str, arguments)],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def newest(self) -> Path:
        """The newest run."""
        return max(path for path in self.runs.iterdir() if (path / "run.json").is_file())

    def processes(self) -> list[int]:
        """Processes of this site that have not ended, besides `ft`."""
        return [pid for pid, line in command_lines() if str(self.prefix.parent) in line
                and "orchestrator.cli.main" not in line]  # fmt: skip

    def starts(self, run: Path, stage: str) -> int:
        """How often the process of a stage was started."""
        log = run / "logs" / f"{stage}.log"
        return log.read_text().count("start of the stand-in") if log.is_file() else 0


def _recipe(source: str, base: str, runs: Path) -> dict[str, Any]:
    return {
        "name": "standin",
        "backend": "llamafactory",
        "model": {"base": base, "family": "qwen2"},
        "data": {
            "sources": [{"path": source, "format": "messages"}],
            "sequence_length": 512,
            "chat_template": "tokenizer",
        },
        "adapter": {"type": "lora", "rank": 4},
        "training": {"steps": STEPS, "learning_rate": 1e-4, "save": 2, "log_every": 1},
        "output": {"directory": str(runs)},
    }


def command_lines() -> Iterator[tuple[int, str]]:
    """Process id and command line of everything that runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError, IndexError):
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace")


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            if value := condition():
                return value
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def kill(process: "subprocess.Popen[str]") -> None:
    """kill -9, and wait for the end."""
    process.send_signal(signal.SIGKILL)
    process.wait()
