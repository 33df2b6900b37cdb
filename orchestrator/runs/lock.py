"""Who works on a run: the lock in its folder, and the name of the `ft` that holds it.

The lock says whether anybody does; the file's content says who, for messages and for `ft runs
cancel`. A process id alone proves nothing, since the system uses it again: the moment at which the
process began is kept with it. While the run is held, the file's time is renewed, which another host
sees also where a lock does not reach it. Only whether it changes is looked at, so no clock matters.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator import locks
from orchestrator.errors import LaunchError
from orchestrator.files import read_json, unwritable
from orchestrator.runs.layout import RunLayout

BEAT = 5.0
PATIENCE = 1.0
"""Seconds that a lock may be taken by a reader who only looks, or by an ft that just ends."""

LEAVING = 30.0
"""Seconds that what a killed ft has started may need to end."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An `ft` by process id, host and the moment it began, in ticks of that boot."""

    pid: int
    host: str
    began: str

    @staticmethod
    def of(pid: int) -> "Holder":
        """A process of this machine as it is now."""
        return Holder(pid, socket.gethostname(), _began(pid))

    @property
    def here(self) -> bool:
        """It is, or was, on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """It is on this machine and still runs, and is no other that got its number."""
        return self.here and bool(self.began) and _began(self.pid) == self.began


def _began(pid: int) -> str:
    """Boot and tick at which a process began; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if stat[0] in "ZX" else f"{boot}:{stat[19]}"


def holder(layout: RunLayout) -> Holder | None:
    """Who holds the run, or held it last."""
    known = read_json(layout.lock)
    try:
        return Holder(**known)
    except TypeError:
        return None


def is_locked(layout: RunLayout) -> bool:
    """Whether some `ft`, or what it has started, works on the run now.

    Looking takes a shared lock for a moment: readers do not see each other.
    """
    try:
        descriptor = os.open(layout.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to read: nothing proves that it ended
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        found = holder(layout)
        return found is not None and found.alive
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock; the system releases it however we end.

    Raises:
        LaunchError: another `ft` works on this run, or its folder cannot be written.
    """
    descriptor = locks.opened(layout.lock)
    try:
        _take(descriptor, layout)
        _sign(descriptor, layout)
        with locks.holding(descriptor), _beating(descriptor):
            yield
    finally:
        os.close(descriptor)


def _sign(descriptor: int, layout: RunLayout) -> None:
    me = json.dumps(asdict(Holder.of(os.getpid()))).encode()
    try:
        os.pwrite(descriptor, me, 0)
        os.ftruncate(descriptor, len(me))
    except OSError as error:
        raise unwritable(error, layout.lock) from error


def _take(descriptor: int, layout: RunLayout) -> None:
    started = time.monotonic()
    while True:
        found = holder(layout)
        other = found is not None and found.alive and found.pid != os.getpid()
        if locks.taken(descriptor) and (not other or locks.real(descriptor)):
            return
        leaving = found is not None and found.here and not found.alive
        if time.monotonic() - started > (LEAVING if leaving else PATIENCE):
            who = f" (process {found.pid} on {found.host})" if found else ""
            raise LaunchError(
                f"another ft works on {layout.id}{who}",
                hint=f"wait for it (`ft runs wait {layout.id}`), or start a new run",
            )
        time.sleep(0.05)


@contextlib.contextmanager
def _beating(descriptor: int) -> Iterator[None]:
    """Renew the file's time while the run is held."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(descriptor)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def left_alone(layout: RunLayout, seconds: float = 2.5 * BEAT) -> bool:
    """Whether nobody renews the lock's time: asked before a run of another host is taken over."""
    before, deadline = _time(layout), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _time(layout) != before:
            return False
        time.sleep(BEAT / 10)
    return True


def _time(layout: RunLayout) -> int:
    """The file's time; opened for it, since a network file system may remember an old one."""
    try:
        with layout.lock.open("rb") as handle:
            return os.fstat(handle.fileno()).st_mtime_ns
    except OSError:
        return 0
