"""The only place that starts a process.

A command is a list of arguments, never a shell string, and its environment is built on purpose:
what a backend inherits from the user's shell (`PYTHONPATH`, a half-active conda, `PIP_*`) is what
breaks it in ways that nobody finds. Each child leads its own process group, so that Ctrl-C and
errors can end it with everything it started.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import LaunchError

INHERITED = (
    "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SHELL", "COLUMNS",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH",
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
    "MODULEPATH",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CC", "CXX",
)  # fmt: skip
INHERITED_PREFIXES = ("LC_", "HF_", "HUGGING_FACE_", "WANDB_", "NCCL_", "SLURM_", "UCX_", "FI_")
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
    """A running child in its own process group."""

    argv: tuple[str, ...]
    popen: "subprocess.Popen[bytes]"
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """Process id, which is the group's id too."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.popen.poll()

    def end(self, grace: float = 10.0) -> None:
        """End the whole group: SIGTERM, `grace` seconds to obey, then SIGKILL.

        The group is signalled even when its leader has gone, since what it started may live on.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and self.popen.poll() is None:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, log: Path
) -> Process:
    """Start a child whose output is appended to `log`.

    Raises:
        LaunchError: the program is not there or may not be executed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise LaunchError(
            f"cannot start {argv[0]}: {error.strerror or error}",
            hint="is the environment complete? `ft backend doctor` tells",
        ) from error
    return Process(tuple(argv), popen)


def follow(
    process: Process, *, log: Path, on_poll: Callable[[], None] | None = None, every: float = 0.1
) -> Completed:
    """Wait for `process`, calling `on_poll` now and then; end it if anything is raised meanwhile.

    `KeyboardInterrupt` ends the whole process group and is raised again.
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
    process.end(grace=0)  # what the leader left behind in its group
    return Completed(
        process.argv, process.popen.returncode, time.monotonic() - process.started, last_lines(log)
    )


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
) -> tuple[int, str, str]:
    """Run a short command and return exit code, stdout and stderr.

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
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{shown(argv)} did not answer within {timeout:.0f} s") from error
    except OSError as error:
        raise LaunchError(f"cannot start {argv[0]}: {error.strerror or error}") from error
    return done.returncode, done.stdout, done.stderr


def shown(argv: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(argv)


def last_lines(log: Path, count: int = 30, *, width: int = 400) -> str:
    """The last lines of a log without the leftovers of progress bars."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 65536))
            raw = handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines: Iterator[str] = (line.rsplit("\r", 1)[-1].rstrip() for line in raw.split("\n"))
    return "\n".join(deque((line[:width] for line in lines if line), maxlen=count))
