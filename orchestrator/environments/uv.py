"""Calling uv: which one, with which environment, and what its output means.

uv is a dependency of ours, so the one beside our own Python is used and not one that happens to be
on PATH. Its environment is built on purpose, like that of every child: an active virtual
environment or a `PYTHONPATH` of the user's shell must not reach it, nor any tracker's key, since
uv runs the build scripts of source packages.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import shell
from orchestrator.environments import indexes
from orchestrator.errors import BackendEnvironmentError


def command(*arguments: str) -> list[str]:
    """The command line of uv.

    Raises:
        BackendEnvironmentError: uv is not installed.
    """
    from uv import find_uv_bin

    try:
        program = os.fspath(find_uv_bin())
    except FileNotFoundError as error:
        raise BackendEnvironmentError(
            "uv is not where ft is installed", hint=f"{sys.executable} -m pip install uv"
        ) from error
    return [program, *arguments]


# The user's own settings of uv that say where packages come from and how they travel. Those that
# change what is installed (UV_CONSTRAINT, UV_EXCLUDE_NEWER, UV_NO_VERIFY_HASHES) stay outside.
PASSED_ON = re.compile(
    r"UV_(\w*INDEX\w*|FIND_LINKS|CACHE_DIR|NO_CACHE|LINK_MODE|OFFLINE|INSECURE_HOST|KEYRING_PROVIDER"
    r"|\w*HTTP_\w+|REQUEST_TIMEOUT|SYSTEM_CERTS|NATIVE_TLS|CONCURRENT_\w+|CREDENTIALS_DIR"
    r"|(NO_)?CONFIG(_FILE)?|PYTHON_(INSTALL_DIR|PREFERENCE|SEARCH_PATH)|LOCK_TIMEOUT)$"
    r"|NETRC$|ALL_PROXY$|SSL_CLIENT_CERT$|PYENV_ROOT$"
)


def environment(found: indexes.Sources, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """uv's environment variables, with pip's configuration handed on."""
    environ = os.environ if environ is None else environ
    return {
        **{
            name: value
            for name, value in shell.base_environment(environ).items()
            if not name.startswith(("HF_", "HUGGING_FACE_", "WANDB_"))
        },
        **{name: value for name, value in environ.items() if PASSED_ON.match(name)},
        **found.variables,
        "PATH": shell.system_path(),
        "DS_BUILD_OPS": "0",  # deepspeed: build nothing now, its kernels are compiled on first use
        "UV_NO_PROGRESS": "1",
    }


STEP = re.compile(r"^\s*(Downloading|Building|Downloaded|Built) ([^\s(]+)(?: \((\S+)\))?")
TOTAL = re.compile(r"^(Resolved|Prepared|Installed) (\d+) packages?")


@dataclass(slots=True)
class Progress:
    """What uv has done so far, read from its output.

    uv names only what takes a while (a download over a megabyte, a build), so the count of
    packages is known at the end of each step only; in between, what is under way is named.
    """

    packages: int = 0
    finished: bool = False
    announced: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    under_way: dict[str, str] = field(default_factory=dict)
    _rest: str = ""

    def feed(self, text: str) -> None:
        """Take in more of uv's output, which may end in the middle of a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if match := TOTAL.match(line):
                self.packages = max(self.packages, int(match[2]))
                self.finished = match[1] == "Installed"
                if match[1] != "Resolved":
                    self.under_way.clear()
            elif match := STEP.match(line):
                name = match[2].split("==")[0]
                if match[1] in ("Downloading", "Building"):
                    self.announced.add(name)
                    self.under_way[name] = match[3] or match[1].lower()
                else:
                    self.done.add(name)
                    self.under_way.pop(name, None)

    def line(self) -> str:
        """A short status: the largest thing that is under way."""
        if not self.under_way:
            return "" if self.packages else "resolving"
        names = sorted(self.under_way, key=lambda name: -_size(self.under_way[name]))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]} ({self.under_way[names[0]]}){more}"


def _size(shown: str) -> float:
    """The bytes of `272.5MiB`; a build counts as large, since it is what one waits for."""
    match = re.match(r"([\d.]+)([KMG]?)i?B", shown)
    return float(match[1]) * 1024 ** " KMG".index(match[2] or " ") if match else 1e12


CAUSES: Sequence[tuple[str, str, str]] = (
    (
        r"no space left|disk quota exceeded|os error (28|122)\b",
        "the disk is full, or your quota is used up",
        "make room, or set FT_HOME (and UV_CACHE_DIR) to a folder on a larger disk",
    ),
    (
        r"hash mismatch|no hashes were provided",
        "a package source delivered another file than the one the lock names",
        "ask whoever keeps that source; `pip config list` shows which ones are set",
    ),
    (
        r"invalid peer certificate|unknownissuer|certificate verify|self.signed",
        "the registry's certificate is not trusted",
        "set SSL_CERT_FILE to your site's bundle, or UV_SYSTEM_CERTS=1 to use the system's",
    ),
    (
        r"\b(401|403)\b|unauthorized|forbidden",
        "the registry refused access",
        "check the credentials in pip's configuration or ~/.netrc",
    ),
    (
        r"dns error|error sending request|connection (refused|reset)|network is unreachable"
        r"|timed? ?out|network connectivity is disabled|failed to lookup",
        "the registry cannot be reached",
        "check the network, the proxy (HTTPS_PROXY) and pip's index-url; on a cluster install on a"
        " login node; without any network set pip's no-index and find-links",
    ),
    (
        r"no wheels|no matching distribution|not found in the (provided )?package|no solution found"
        r"|no compatible|was not found in|no version of",
        "no package source has a file that fits the lock and this Python",
        "check pip's index-url and find-links; another build of torch may be available (--torch)",
    ),
    (
        r"failed to build|build backend|command .*gcc|error: command",
        "a source package could not be built",
        "the output names the package and what it lacks",
    ),
    (
        r"permission denied|os error 13\b|read-only file system",
        "a folder cannot be written",
        "check who owns FT_HOME and uv's cache (`uv cache dir`)",
    ),
)


def cause(output: str) -> tuple[str, str]:
    """The likely cause of a failure and its remedy, from uv's output."""
    for pattern, meaning, remedy in CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            return meaning, remedy
    return "uv gave up", "the output says why"


def installed_packages(site_packages: Iterable[Path]) -> int:
    """How many packages are in an environment so far."""
    return sum(1 for folder in site_packages for _ in folder.glob("*.dist-info"))
