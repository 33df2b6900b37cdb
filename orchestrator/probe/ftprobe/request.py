"""Reading a request's fields and writing its result.

A request is plain JSON so that any process can write one. The accessors turn a missing or
mistyped field into a :class:`ProbeError` at the first line of a task, before anything expensive is
imported.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ProbeError

Request = Mapping[str, Any]
Result = dict[str, Any]


def text(request: Request, field: str) -> str:
    """A required string."""
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise ProbeError(
            f"The request has no usable {field!r}: {value!r}.",
            hint="This is a defect in ft, not in your recipe.",
        )
    return value


def optional_text(request: Request, field: str) -> str | None:
    """A string that may be absent or null."""
    return None if request.get(field) is None else text(request, field)


def existing_path(request: Request, field: str) -> Path:
    """A required path that must exist."""
    path = Path(text(request, field))
    if not path.exists():
        raise ProbeError(f"{field} {str(path)!r} does not exist.", hint="Check the path.")
    return path


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(value, stream, ensure_ascii=False, indent=1, allow_nan=True)
            stream.write("\n")
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # as any other file: others may go on with the run
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def rank() -> int:
    """This process's rank as torchrun sets it; 0 for a process on its own.

    Only rank 0 writes results and events: the others compute the same values.
    """
    return int(os.environ.get("RANK", "0"))
