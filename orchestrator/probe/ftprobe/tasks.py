"""The tasks by name.

A task is a function ``task(request) -> result``. It may be called several times, one task after
another, in one process that has already imported the backend; it never ends the process. The
modules are imported on first use because imports are nearly all of a short task's time.
"""

import importlib
import os
from collections.abc import Callable
from typing import cast

from .errors import ProbeError
from .request import Request, Result, text

Task = Callable[[Request], Result]

COMMON = {
    "twin": "twin:twin",
    "describe_model": "describe:describe_model",
    "doctor": "doctor:doctor",
    "validate_all": "validate_all:validate_all",
}
BY_BACKEND = {
    "axolotl": {
        "preprocess": "axolotl_tasks:preprocess",
        "train": "axolotl_tasks:train",
        "merge": "axolotl_tasks:merge",
        "keys": "axolotl_keys:keys",
        "validate": "axolotl_keys:validate",
    },
    "llamafactory": {
        "preprocess": "llamafactory_tasks:preprocess",
        "train": "llamafactory_tasks:train",
        "merge": "llamafactory_tasks:merge",
        "keys": "llamafactory_keys:keys",
        "validate": "llamafactory_keys:validate",
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
    return cast(Task, getattr(importlib.import_module(f".{module}", __package__), function))


def perform(request: Request) -> Result:
    """Do what the request asks and return its result.

    Both backends set environment variables while they read a configuration (accelerate's switches,
    wandb's project); those must not reach the next task in this process.
    """
    before = dict(os.environ)
    try:
        return find(text(request, "backend"), text(request, "task"))(request)
    finally:
        os.environ.clear()
        os.environ.update(before)
