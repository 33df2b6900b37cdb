"""Run one request in this process: ``python stage.py REQUEST.json``.

This file is all that a stage's command names, and it holds only what concerns the process: where
the result goes, which exit code it ends with, how signals end it. What a task does lives in
``ftprobe`` and can be called without this file.

It stays small and standard-library only at import time: ``datasets.save_to_disk`` starts a manager
process by spawn, and that process imports this file again as ``__main__``. Where the main module is
a backend's console script, that second import costs as much as the first (8 s measured for
axolotl 0.19.0).

Exit codes: 0 done, 3 an expected failure (the result says what to do), 130 interrupted, 1 a defect
(the traceback is on stderr).
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

EXIT_EXPECTED = 3
EXIT_DEFECT = 1


def failure(error: BaseException) -> dict[str, Any]:
    """What the result file says about a failure."""
    described = {"type": type(error).__name__, "message": str(error)}
    hint = getattr(error, "hint", None)
    if hint is not None:
        described["hint"] = hint
    return {"error": described}


def leave(code: int) -> NoReturn:
    """End now, without interpreter teardown.

    Everything worth keeping is on disk by then, and teardown is where gloo and FSDP processes were
    seen to abort after a finished training (torch 2.11, "terminate called without an active
    exception"), which would turn a success into a failure. Skipping it also saves about a second.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(argv: list[str]) -> int:
    """Run the request and return the exit code."""
    from ftprobe.errors import ProbeError
    from ftprobe.request import rank, write_json
    from ftprobe.tasks import run

    request = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    result_path = Path(request["result"])
    # Both backends read sys.argv by themselves: llamafactory takes a first argument ending in .yml
    # as its configuration, axolotl's HfArgumentParser parses whatever is there.
    sys.argv = [argv[0]]

    def write(value: dict[str, Any]) -> None:
        if rank() == 0:
            write_json(result_path, value)

    try:
        result = run(request)
    except ProbeError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        write(failure(error))
        return EXIT_EXPECTED
    except KeyboardInterrupt as error:
        write(failure(error))
        return 128 + signal.SIGINT
    except BaseException as error:
        import traceback

        traceback.print_exc()
        write(failure(error))
        return EXIT_DEFECT
    write(result)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: stage.py REQUEST.json")
    leave(main(sys.argv))
