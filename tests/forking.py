"""`ft` without its start-up: a process that has imported it forks for each command line.

What runs is the real `ft`, with arguments, variables, folder, files and exit code of its own. Only
half a second of imports is paid once instead of some hundreds of times. Nothing is kept from one
command line to the next, since the process that forks never runs any.
"""

import atexit
import json
import os
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

AT_START = ("PYTHON", "LANG", "LC_", "MALLOC")
"""Variables that Python or C looks at when a process starts: a fork comes too late for them."""


@cache
def _server() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )  # fmt: skip
    atexit.register(process.communicate)
    return process


def possible(environ: dict[str, str]) -> bool:
    """Whether a fork can have these variables."""
    names = {name for name in {*environ, *os.environ} if name.startswith(AT_START)}
    return all(environ.get(name) == os.environ.get(name) for name in names - {"PYTHONPATH"})


def run(arguments: list[str], cwd: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line of `ft`."""
    server = _server()
    assert server.stdin
    assert server.stdout
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        order = {"arguments": arguments, "cwd": str(cwd), "environ": environ,
                 "out": str(out), "err": str(err)}  # fmt: skip
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return code, out.read_text(errors="replace"), err.read_text(errors="replace")


def _serve() -> None:
    import orchestrator.cli.main
    import orchestrator.labels.document
    import orchestrator.labels.terminal
    import orchestrator.pipeline
    import orchestrator.run_folder
    import orchestrator.standalone  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become(order: dict[str, Any]) -> NoReturn:
    """End as the command line does."""
    code: object = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for target, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT), target)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.argv = ["ft", *order["arguments"]]
        from orchestrator.cli.main import main

        main()
    except SystemExit as ending:
        code = ending.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1 if code else 0)


if __name__ == "__main__":
    _serve()
