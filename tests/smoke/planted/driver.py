"""Many tasks of one backend for one start of it: ``python driver.py PROBE LIST.json``.

Runs with the Python of a backend's environment. The backend is imported once, which costs more than
all tasks together, and each task runs in a child forked from there: a task leaves things behind in
its process (llamafactory 0.9.5 writes the configuration's default system prompt into the template
that the next task takes). Each answer is written to its own ``result``.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

IMPORTS = {
    "axolotl": (
        "axolotl.cli.config",
        "axolotl.common.datasets",
        "axolotl.loaders",
        "axolotl.utils.trainer",
        "axolotl.prompt_strategies.chat_template",
        "axolotl.prompt_strategies.alpaca_w_system",
    ),
    "llamafactory": ("llamafactory.data", "llamafactory.hparams", "llamafactory.model"),
}
"""What the tasks import, done before the first of them."""


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


def child(request: dict[str, Any]) -> None:
    """Run one task and end."""
    with Path(request["result"]).with_suffix(".log").open("w", encoding="utf-8") as stream:
        for output in (1, 2):  # loggers hold the streams that were there at import
            os.dup2(stream.fileno(), output)
    made = answer(request)
    sys.stdout.flush()
    Path(request["result"]).write_text(json.dumps(made), encoding="utf-8")
    os._exit(0)


def main(probe: str, listed: str) -> None:
    """Run the whole list."""
    sys.path.insert(0, probe)
    sys.argv = sys.argv[:1]  # both backends read it by themselves
    requests = json.loads(Path(listed).read_text(encoding="utf-8"))
    from ftprobe.imports import leave_out  # type: ignore[import-not-found, unused-ignore]

    leave_out()
    from ftprobe import torchaudio_stub  # type: ignore[import-not-found, unused-ignore]

    backend = requests[0]["backend"]
    if backend == "llamafactory":
        torchaudio_stub.install()
    for name in IMPORTS[backend]:
        importlib.import_module(name)
    one_process()
    for request in requests:
        process = os.fork()
        if process == 0:
            child(request)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    sys.stdout.flush()
    os._exit(0)
