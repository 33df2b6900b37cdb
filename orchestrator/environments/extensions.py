"""The folder in which torch builds parts of DeepSpeed when training starts.

A build is marked by a file `lock` that the process removes when it is done. One that was killed
leaves it behind, and every later training would wait for it without a word and without an end
(torch's `FileBaton.wait`).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator import locks


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Use the folder, after removing what killed builds have left.

    Raises:
        LaunchError: the folder cannot be made.
    """
    descriptor = locks.opened(folder / ".in-use")
    try:
        if locks.taken(descriptor) and locks.real(descriptor):  # nobody else can be building
            for left in folder.glob("*/lock"):
                left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with locks.holding(descriptor):
            yield
    finally:
        os.close(descriptor)
