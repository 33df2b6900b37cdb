"""Locks between processes, kept by the kernel: one that is killed gives them back.

What we start works under our locks, so its guard inherits them (`held`, in `shell.start`): a lock
is free only when nothing that was started under it runs any more.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.files import unwritable

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock(2) says on a file system without locks, as Lustre may be mounted."""

_held: set[int] = set()


def held() -> tuple[int, ...]:
    """The file descriptors of the locks that this process holds."""
    return tuple(sorted(_held))


@contextlib.contextmanager
def holding(descriptor: int) -> Iterator[None]:
    """Count a locked file as held, so that it stays so while our children run."""
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


def opened(file: Path) -> int:
    """A lock's file, made if need be.

    Raises:
        LaunchError: the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise unwritable(error, file) from error


def taken(descriptor: int) -> bool:
    """Take the lock if it is free; where the file system has no locks, there is nothing to take."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def real(descriptor: int) -> bool:
    """Whether the lock that was taken is one, on a file system that has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def shared_folder(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """The only right to make `folder`; others wait for it, and call `waiting` before they do.

    The lock's file lies beside the folder and stays: deleting it would give the right to two.

    Raises:
        LaunchError: the lock's file cannot be made.
    """
    descriptor = opened(folder.parent / f".{folder.name}.lock")
    try:
        if not taken(descriptor):
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with holding(descriptor):
            yield
    finally:
        os.close(descriptor)
