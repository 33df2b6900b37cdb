"""Runs one command, and ends with it everything that it started, whatever happens to `ft`.

A process group does not hold a training together: torch's launcher gives each rank a session of its
own, and a group gets no signal when `ft` itself is killed. So `shell.start` puts this process in
between. It becomes the subreaper of what the command starts, so that nothing gets away by losing
its parent, and it holds one end of a socket: when the other end closes, `ft` is gone.

`ft` runs this file by its path, as `python -I -S guard.py SOCKET PROGRAM ARGUMENTS...`, and it
imports only the standard library: it costs some milliseconds and a few megabytes.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

GRACE = 10.0
"""Seconds that a command has to obey SIGTERM."""

LINGER = 2.0
"""Seconds that what a command left behind has to end by itself."""

NOT_OURS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or a scheduler may send to everything; only `ft` ends a command."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def descendants(ancestor: int) -> list[int]:
    """The processes below `ancestor` that have not ended; none where there is no /proc.

    One whose first thread has ended is shown as ended (Z) while its other threads and its children,
    which it still is the parent of, live: it is not counted, but what is below it is.
    """
    children: dict[int, list[int]] = {}
    ended = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH112, PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = (
                    Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                )
                children.setdefault(int(parent), []).append(int(name))
                if state in "ZX":
                    ended.add(int(name))
    found, unseen = [], [ancestor]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return [pid for pid in found if pid not in ended]


class Guard:
    """The command, and the right to end it."""

    def __init__(self, control: socket.socket, argv: list[str]) -> None:
        self.control = control
        self.argv = argv
        self.leader = 0
        self.status: int | None = None
        self.ordered = False
        self.wake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._order)
        for number in NOT_OURS:
            signal.signal(number, signal.SIG_IGN)

    def _order(self, *_: object) -> None:
        self.ordered = True

    def run(self) -> NoReturn:
        """Start the command, and leave as it left."""
        self._start()
        while self.status is None and not self.ordered:
            self._wait(None)
        if self.status is None:
            self._end(GRACE)
        else:
            self._clear(LINGER)
        leave(self.status if self.status is not None else signal.SIGKILL)

    def _start(self) -> None:
        """Fork and execute; `ft` is told the process id, or why there is none."""
        answer, failed = os.pipe()  # closed by a successful exec
        self.leader = os.fork()
        if self.leader == 0:
            try:
                self._become()
            except OSError as error:
                os.write(failed, str(error.errno).encode())
            os._exit(127)
        os.close(failed)
        error_number = os.read(answer, 16)
        os.close(answer)
        said = f"failed {error_number.decode()}" if error_number else f"started {self.leader}"
        with contextlib.suppress(OSError):
            self.control.sendall(f"{said}\n".encode())

    def _become(self) -> NoReturn:
        """In the child: lead a session, die with the guard, and be the command."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, *NOT_OURS):
            signal.signal(number, signal.SIG_DFL)
        parent = os.getppid()
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        os.execvp(self.argv[0], self.argv)

    def _wait(self, seconds: float | None) -> None:
        """Sleep until a child ends, a signal comes, or `ft` goes away."""
        watched = [self.wake] if self.ordered else [self.wake, self.control.fileno()]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 512)
        if self.control.fileno() in ready:
            with contextlib.suppress(OSError):
                self.ordered = not self.control.recv(64)
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.leader:
                    self.status = status

    def _end(self, grace: float) -> None:
        """Ask everything to end; what has not when the command has, or in time, is killed."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.status is None and time.monotonic() < deadline:
            self._wait(max(0.0, deadline - time.monotonic()))
        self._clear(0.0)

    def _clear(self, grace: float) -> None:
        """Wait for what is left; after `grace` seconds, or when ft is gone, kill it."""
        deadline = time.monotonic() + grace
        while self.status is None or descendants(os.getpid()):
            if self.ordered or time.monotonic() >= deadline:
                self._signal(signal.SIGKILL)
            self._wait(0.05)

    def _signal(self, number: signal.Signals) -> None:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if self.status is None:  # its process id, and so its group's, is not free before
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, number)


def leave(status: int) -> NoReturn:
    """End as the command did, by the same signal if it was one, without a core file of our own."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def main(argv: list[str]) -> NoReturn:
    """Guard the command in `argv`, behind the socket's number."""
    control = socket.socket(fileno=int(argv[1]))
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        if int(name) > 2:  # locks that ft holds are ours to keep, not the command's
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    Guard(control, argv[2:]).run()


if __name__ == "__main__":
    main(sys.argv)
