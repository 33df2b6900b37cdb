"""Writing files so that a reader, or a later run, never meets half of one."""

import errno
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
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(error, path) from error
        raise


STORAGE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EROFS: "the file system can only be read; mount it otherwise, or choose another folder",
    errno.EACCES: "make the folder writable, or choose another",
    errno.EPERM: "make the folder writable, or choose another",
    errno.EIO: "the disk or its server has a fault; look at `dmesg`",
    errno.ESTALE: "the file server has lost the folder; look whether it is mounted",
    errno.ENOTCONN: "the file server does not answer; look whether it is mounted",
    errno.ESHUTDOWN: "the file server has cut this machine off; look whether it is mounted",
}
"""Errors of a place that files are in, which are no bug of ours, and what helps."""


def unwritable(error: OSError, path: str | Path, doing: str = "write") -> LaunchError:
    """What to say when `path` could not be written, or what else was tried with it."""
    return LaunchError(
        f"cannot {doing} {path}: {error.strerror or error}",
        hint=STORAGE.get(error.errno or 0, "choose another folder"),
    )


FAULTS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN)
"""Errors that say nothing about whether a file is there."""


def no_room(folder: Path) -> str:
    """Why nothing can be written in `folder`, as the system says it; empty if it can.

    A program that met a full disk could not write that into its log either. A few
    blocks may be free again by now, so more than that is tried.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as handle:
            handle.write(bytes(64 * 1024))
            handle.flush()
    except OSError as error:
        return str(error)
    return ""


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON with a newline at the end, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON document in `path`; None when there is no such file or it cannot be parsed.

    Raises:
        LaunchError: the disk or its server has a fault: what is there would be taken for missing.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if error.errno in FAULTS:
            raise unwritable(error, path, "read") from error
        return None
    except (ValueError, RecursionError):
        return None
