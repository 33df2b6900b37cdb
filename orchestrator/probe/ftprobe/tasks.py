"""The tasks by name.

A task is a function ``task(request) -> result``. It may be called several times, one task after
another, in one process that has already imported the backend; it never ends the process. The
modules are imported on first use because imports are nearly all of a short task's time.
"""

import importlib
from collections.abc import Callable
from typing import cast

from ftprobe.errors import ProbeError
from ftprobe.request import Request, Result, text

Task = Callable[[Request], Result]

COMMON = {
    "twin": "ftprobe.twin:twin",
    "describe_model": "ftprobe.describe:describe_model",
    "doctor": "ftprobe.doctor:doctor",
}
BY_BACKEND = {
    "axolotl": {
        "preprocess": "ftprobe.axolotl_tasks:preprocess",
        "train": "ftprobe.axolotl_tasks:train",
        "merge": "ftprobe.axolotl_tasks:merge",
        "keys": "ftprobe.axolotl_keys:keys",
        "validate": "ftprobe.axolotl_keys:validate",
    },
    "llamafactory": {
        "preprocess": "ftprobe.llamafactory_tasks:preprocess",
        "train": "ftprobe.llamafactory_tasks:train",
        "merge": "ftprobe.llamafactory_tasks:merge",
        "keys": "ftprobe.llamafactory_keys:keys",
        "validate": "ftprobe.llamafactory_keys:validate",
    },
}


def find(backend: str, name: str) -> Task:
    """The function behind a task name, imported now."""
    targets = {**COMMON, **BY_BACKEND.get(backend, {})}
    if backend not in BY_BACKEND or name not in targets:
        raise ProbeError(
            f"There is no task {name!r} for backend {backend!r}.",
            hint=f"Backends: {', '.join(BY_BACKEND)}. Tasks: {', '.join(sorted(targets))}.",
        )
    module, function = targets[name].split(":")
    return cast(Task, getattr(importlib.import_module(module), function))


def run(request: Request) -> Result:
    """Do what the request asks and return its result."""
    return find(text(request, "backend"), text(request, "task"))(request)
