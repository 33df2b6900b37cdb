"""What concerns the process that runs a request, and not the task.

Where the result goes, which exit code the process ends with, how it ends. The tasks know none of
this, so that another kind of process can run them: a child forked from a parent that has imported
the backend already needs only :func:`run`.

Exit codes: 0 done, 3 an expected failure (the result says what to do), 130 interrupted, 1 a defect
(the traceback is on stderr).
"""

import atexit
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from . import preflight
from .errors import ProbeError
from .imports import leave_out
from .recorder import Recorder
from .request import rank, write_json
from .tasks import perform

EXIT_EXPECTED = 3
EXIT_DEFECT = 1
TRACE = 20_000
"""Characters of a traceback that are handed on."""


def failure(error: BaseException) -> dict[str, Any]:
    """What the result file says about a failure."""
    trace = "".join(traceback.format_exception(error))[-TRACE:]
    described = {"type": type(error).__name__, "message": str(error), "traceback": trace}
    if isinstance(error, ProbeError):
        described["hint"] = error.hint
    return {"error": described}


def leave(code: int) -> NoReturn:
    """End now: run the exit handlers (wandb finishes its run in one), skip the teardown after them.

    Everything worth keeping is on disk by then, and teardown is where gloo and FSDP processes were
    seen to abort after a finished training (torch 2.11, "terminate called without an active
    exception"), which would turn a success into a failure. Skipping it also saves about a second.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(request_file: Path) -> int:
    """Run the request, write its result, and return the exit code.

    With several ranks only rank 0 writes: the others compute the same values. The process serves
    one request, so it may leave out imports that the task cannot need.
    """
    request = json.loads(request_file.read_text(encoding="utf-8"))
    result_file = Path(request["result"])

    def write(value: dict[str, Any]) -> None:
        if rank() == 0:
            write_json(result_file, value)

    leave_out()
    try:
        met = preflight.check(request)
        if met:
            note(request, met)
        result = perform(request)
    except ProbeError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        write(failure(error))
        return EXIT_EXPECTED
    except KeyboardInterrupt as error:
        write(failure(error))
        return 128 + signal.SIGINT
    except BaseException as error:
        traceback.print_exc()
        write(failure(error))
        return EXIT_DEFECT
    write(result)
    return 0


def note(request: dict[str, Any], met: dict[str, Any]) -> None:
    """Tell whoever follows the events that all processes are there."""
    events = request.get("events")
    if events:
        Recorder(Path(events)).write({"t": time.time(), "event": "preflight", **met})


def end_with_parent() -> None:
    """Let the system end this process when the one that started it dies, even by SIGKILL.

    Else a killed `ft` would leave a training behind that nobody sees and that keeps the GPU.
    1 is PR_SET_PDEATHSIG (Linux); elsewhere nothing happens.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(EXIT_DEFECT)


def main(argv: list[str]) -> NoReturn:
    """Run one request and end the process.

    Both backends read ``sys.argv`` by themselves (llamafactory takes a first argument ending in
    .yml for its configuration, axolotl parses whatever is there), so it is emptied first.
    """
    if len(argv) != 2:
        sys.exit("usage: stage.py REQUEST.json")
    sys.argv = argv[:1]
    end_with_parent()
    leave(run(Path(argv[1])))
