"""The only place that starts a process.

A command is a list of arguments, never a shell string, and its environment is built on purpose:
what a backend inherits from the user's shell (`PYTHONPATH`, a half-active conda, `PIP_*`) is what
breaks it in ways that nobody finds. Each child that we follow has a guard (`guard.py`), which ends
it with everything it started: after Ctrl-C, after an error, and when we are killed.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import guard, locks
from orchestrator.errors import LaunchError

INHERITED = (
    "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SHELL", "COLUMNS",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH",
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
    "MODULEPATH",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CC", "CXX", "CUDA_DEVICE_ORDER", "GLOO_SOCKET_IFNAME",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_LAUNCH_BLOCKING",
)  # fmt: skip
INHERITED_PREFIXES = (
    "LC_",
    "HF_",
    "HUGGING_FACE_",
    "WANDB_",
    "NCCL_",
    "TORCH_NCCL_",
    "SLURM_",
    "UCX_",
    "FI_",
)
SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def base_environment(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child may inherit from `source` (default: our own environment)."""
    source = os.environ if source is None else source
    return {
        name: value
        for name, value in source.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables with every secret's value replaced, for records and logs."""
    return {
        name: "***" if any(word in name.upper() for word in SECRET_WORDS) else value
        for name, value in environment.items()
    }


def difference(environment: Mapping[str, str]) -> dict[str, dict[str, str] | list[str]]:
    """How a child's environment differs from ours, without secrets: set, and left out."""
    set_ = {name: v for name, v in environment.items() if os.environ.get(name) != v}
    removed = sorted(name for name in os.environ if name not in environment)
    return {"set": without_secrets(set_), "removed": removed}


def system_path() -> str:
    """The PATH of a child before its own folders are put in front."""
    return os.environ.get("PATH") or os.defpath


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended: exit code (negative: the signal), seconds, last lines of its output."""

    argv: tuple[str, ...]
    exit_code: int
    seconds: float
    tail: str = ""

    @property
    def reason(self) -> str:
        """The exit in words."""
        if self.exit_code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"


@dataclass(slots=True)
class Process:
    """A running child: `pid` is its own, `popen` the guard that ends what it starts with it.

    `logged` is how long its log was before.
    """

    argv: tuple[str, ...]
    popen: "subprocess.Popen[bytes]"
    pid: int
    control: socket.socket
    logged: int
    started: float = field(default_factory=time.monotonic)

    def poll(self) -> int | None:
        """Exit code, or None while it or anything that it started runs."""
        return self.popen.poll()

    def end(self) -> None:
        """End it with everything it started: SIGTERM, some seconds to obey, then SIGKILL."""
        if self.popen.poll() is None:
            self.popen.terminate()
        self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.popen.wait()
        if code == -signal.SIGKILL:  # was it the guard that somebody killed?
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.control.close()
        return code


def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, log: Path
) -> Process:
    """Start a child whose output is appended to `log`; locks that we hold last until it has ended.

    Raises:
        LaunchError: the program is not there or may not be executed, or the log cannot be written.
    """
    logged = log.stat().st_size if log.exists() else 0
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = _guarded(argv, theirs.fileno(), env, cwd, log)
        except OSError as error:
            ours.close()
            raise LaunchError(
                f"cannot start {argv[0]}: {error.strerror or error}: {error.filename or log}",
                hint="make the run's folder writable, with room on its disk",
            ) from error
    said = ours.makefile().readline().split()
    if said[:1] != ["started"]:
        popen.wait()
        ours.close()
        reason = os.strerror(int(said[1])) if said else "it was ended at once"
        raise LaunchError(
            f"cannot start {argv[0]}: {reason}",
            hint="is the environment complete? `ft backend doctor` tells",
        )
    return Process(tuple(argv), popen, int(said[1]), ours, logged)


def _guarded(
    argv: Sequence[str], control: int, env: Mapping[str, str], cwd: Path | None, log: Path
) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(control), *argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(control, *locks.held()),
        )


def follow(
    process: Process, *, log: Path, on_poll: Callable[[], None] | None = None, every: float = 0.1
) -> Completed:
    """Wait for `process`, calling `on_poll` now and then; end it if anything is raised meanwhile.

    `KeyboardInterrupt` ends everything that the process started and is raised again.
    """
    try:
        while process.poll() is None:
            if on_poll:
                on_poll()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(timeout=every)
        if on_poll:
            on_poll()
    except BaseException:
        process.end()
        raise
    code = process.wait()
    tail = last_lines(log, since=process.logged)
    return Completed(process.argv, code, time.monotonic() - process.started, tail)


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
    own_session: bool = False,
) -> tuple[int, str, str]:
    """Run a short command and return exit code, stdout and stderr.

    `own_session`: what is typed at the terminal (Ctrl-C) does not reach it.

    Raises:
        LaunchError: the program cannot be started, or did not answer within `timeout` seconds.
    """
    try:
        done = subprocess.run(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            start_new_session=own_session,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{shown(argv)} did not answer within {timeout:.0f} s") from error
    except OSError as error:
        raise LaunchError(f"cannot start {argv[0]}: {error.strerror or error}") from error
    return done.returncode, done.stdout, done.stderr


def shown(argv: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(argv)


def last_lines(
    log: Path, count: int = 30, *, width: int = 400, since: int = 0, size: int = 1 << 16
) -> str:
    """The last lines of a log, of its last `size` bytes, without the leftovers of progress bars.

    `since` leaves out what was there before: the process of an earlier attempt said that.
    """
    try:
        with log.open("rb") as handle:
            end = handle.seek(0, os.SEEK_END)
            handle.seek(max(since, end - size))
            raw = handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines: Iterator[str] = (line.rstrip().rsplit("\r", 1)[-1] for line in raw.split("\n"))
    return "\n".join(deque((line[:width] for line in lines if line), maxlen=count))
