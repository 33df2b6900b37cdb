"""The backend's verdict on several configurations, for the price of one import.

Each is judged in a child forked from this process, which has imported the backend already: axolotl
0.19.0 keeps its plugins in one object per process, and a plugin of one configuration would be part
of the next. A child that dies takes only its own verdict with it.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import torchaudio_stub
from .request import Request, Result, text

WARM = {
    "axolotl": (
        "axolotl.cli.config",
        "axolotl.integrations.config",
        "axolotl.utils.config",
        "axolotl.utils.schemas.datasets",
    ),
    "llamafactory": ("llamafactory.hparams", "transformers.training_args"),
}
"""What every verdict of a backend imports."""

PLUGIN = re.compile(r"axolotl\.integrations\.[\w.]+")


def validate_all(request: Request) -> Result:
    """``configs`` one after another; ``verdicts`` in the same order."""
    backend = text(request, "backend")
    if backend == "llamafactory":
        torchaudio_stub.install()
    for module in WARM[backend]:
        importlib.import_module(module)
    if backend == "axolotl":
        import_plugins([text(item, "config") for item in request["configs"]])
    return {"verdicts": [in_child({**item, "backend": backend}) for item in request["configs"]]}


def import_plugins(configs: list[str]) -> None:
    """Import axolotl's plugins of these configurations, once for all children; none is in use yet.

    What cannot be imported is told by the verdict on the configuration that names it.
    """
    named = {name for path in configs for name in PLUGIN.findall(Path(path).read_text("utf-8"))}
    for name in sorted(named):
        with contextlib.suppress(Exception):
            importlib.import_module(name.rpartition(".")[0])


def in_child(request: Mapping[str, Any]) -> Result:
    """The verdict of ``validate`` from a child of this process."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            answer = json.dumps(verdict(request)).encode()
            with os.fdopen(writing, "wb") as stream:
                stream.write(answer)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        result: Result = json.loads(answer)
        return result
    code = os.waitstatus_to_exitcode(status)
    return refusal(f"the process that judged this configuration ended with exit code {code}")


def verdict(request: Mapping[str, Any]) -> Result:
    """What the backend says; anything it raises that no task expects is a refusal, too."""
    from .tasks import find

    try:
        return find(text(request, "backend"), "validate")(request)
    except BaseException as error:
        traceback.print_exc()
        return refusal(f"{type(error).__name__}: {error}")


def refusal(message: str) -> Result:
    """A verdict that only says why not."""
    return {"accepted": False, "messages": [message], "warnings": [], "unknown_keys": []}
