"""One process at a time, across processes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from orchestrator import locks, ui
from orchestrator.errors import BackendEnvironmentError


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the only right to change `path`; the kernel takes it back when we are killed.

    Without `wait` it yields False when another process holds it. The lock's file, `path` with
    `.lock` behind, stays: deleting it would give the right to two.

    Raises:
        BackendEnvironmentError: the folder cannot be written, or its file system has no locks.
    """
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            ui.note(f"another ft is at work on {path.name}, waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise _unusable(path, error) from error
        with locks.holding(handle.fileno()):
            yield True


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(f"{path}.lock").open("w")
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> BackendEnvironmentError:
    return BackendEnvironmentError(
        f"cannot work in {path.parent}: {error.strerror or error}",
        hint="set FT_HOME to a folder that you may write to, on a file system with locks",
    )
