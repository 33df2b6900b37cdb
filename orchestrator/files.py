"""Writing files so that a reader, or a later run, never meets half of one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.errors import LaunchError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path` through a temporary file beside it.

    Raises:
        LaunchError: the folder cannot be written (no permission, disk full).
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise LaunchError(
            f"cannot write {path}: {error.strerror or error}",
            hint="make room on the disk or choose another folder",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON with a newline at the end, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON document in `path`; None when there is no such file or it cannot be parsed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
