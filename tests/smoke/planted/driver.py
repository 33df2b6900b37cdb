"""Many tasks of one backend in one process: ``python driver.py PROBE LIST.json``.

Runs with the Python of a backend's environment. The list holds the requests; each one's answer is
written to its own ``result`` at once, so that one failure takes no other case along. Starting the
backend costs more than all its tasks together, which is why this exists.
"""

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def one_process() -> None:
    """Let ``datasets`` work in this process: a pool for forty rows costs seconds, each time."""
    from datasets import Dataset

    for name in ("map", "filter"):
        _alone(Dataset, name)


def _alone(owner: Any, name: str) -> None:
    original = getattr(owner, name)

    def run(self: Any, *args: Any, num_proc: int | None = None, **kwargs: Any) -> Any:
        return original(self, *args, num_proc=None, **kwargs)

    setattr(owner, name, run)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a task says, or its error."""
    from ftprobe.tasks import perform  # type: ignore[import-not-found, unused-ignore]

    began = time.monotonic()
    try:
        result: dict[str, Any] = perform(request)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    return {**result, "seconds": round(time.monotonic() - began, 3)}


def main(probe: str, listed: str) -> None:
    """Run the whole list."""
    sys.path.insert(0, probe)
    sys.argv = sys.argv[:1]  # both backends read it by themselves
    from ftprobe.imports import leave_out  # type: ignore[import-not-found, unused-ignore]

    leave_out()
    one_process()
    for request in json.loads(Path(listed).read_text(encoding="utf-8")):
        log = Path(request["result"]).with_suffix(".log")
        with (
            log.open("w", encoding="utf-8") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            made = answer(request)
        Path(request["result"]).write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    sys.stdout.flush()
    os._exit(0)
