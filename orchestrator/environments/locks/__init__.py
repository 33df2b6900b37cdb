"""The hashed locks that backend environments are made from, one per backend and build of torch.

`tools/lock.sh` writes them. A lock is identified by its content, and an environment's folder is
named after it, so a changed lock is another environment and never a half-updated one.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from orchestrator.errors import BackendEnvironmentError, UsageError

RELEASES = {"axolotl": "0.19.0", "llamafactory": "0.9.5"}
FOLDER = Path(__file__).parent

Build = Literal["cpu", "cuda"]
# The CPU wheel of torch is locked for one Python only. For CUDA, 3.13 would need a C compiler.
PYTHONS: dict[Build, tuple[str, ...]] = {"cpu": ("3.11",), "cuda": ("3.11", "3.12")}
TORCH_FAMILY = re.compile(r"(torch|torchaudio|torchvision|triton|nvidia-.+|cuda-.+)$")
TORCH_ITSELF = ("torch", "torchaudio", "torchvision")
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)===?(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Lock:
    """A lock file: requirements with hashes, in the format of `uv pip compile`."""

    backend: str
    release: str
    build: Build
    path: Path

    @cached_property
    def blocks(self) -> dict[str, str]:
        """Each package's lines, comments left out, by the package's name.

        One that needs another file for each Python has a line for each; see tools/lock_wheels.py.
        """
        found: dict[str, str] = {}
        name = ""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if match := PIN.match(line):
                name = match["name"].lower()
                found.setdefault(name, "")
            if name:
                found[name] += line + "\n"
        return found

    @cached_property
    def digest(self) -> str:
        """Twelve digits that change with what would be installed, not with the comments."""
        text = "".join(self.blocks.values())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Pythons this lock has wheels for, the best first."""
        return PYTHONS[self.build]

    def version(self, package: str) -> str:
        """The version a package is pinned to; empty when it is not in the lock."""
        match = PIN.match(self.blocks.get(package, ""))
        return match["version"] if match else ""

    def without_torch(self) -> str:
        """The lock without torch, its companions and its CUDA libraries."""
        return "".join(block for name, block in self.blocks.items() if not TORCH_FAMILY.match(name))

    def torch_requirements(self) -> list[str]:
        """torch and its companions without the build that the lock names: `torch==2.13.0`."""
        return [
            f"{name}=={self.version(name).split('+')[0]}"
            for name in TORCH_ITSELF
            if name in self.blocks
        ]


def load(backend: str, build: Build) -> Lock:
    """The shipped lock of a backend.

    Raises:
        UsageError: there is no such backend.
        BackendEnvironmentError: the file is missing from the installation of ft.
    """
    known(backend)
    lock = Lock(backend, RELEASES[backend], build, FOLDER / f"{backend}-{build}.txt")
    if not lock.path.is_file():
        raise BackendEnvironmentError(
            f"ft's lock for {backend} is missing: {lock.path}", hint="install ft again"
        )
    return lock


def known(backend: str) -> str:
    """`backend`, if it is one.

    Raises:
        UsageError: there is no such backend.
    """
    if backend not in RELEASES:
        raise UsageError(f"there is no backend {backend!r}", hint=f"use {' or '.join(RELEASES)}")
    return backend
