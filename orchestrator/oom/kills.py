"""How many processes the kernel has killed because memory was full, as it counts them itself.

A SIGKILL says nothing about its sender. The kernel counts out-of-memory kills per control group
(`memory.events` in version 2, `memory.oom_control` in version 1) and, for processes in groups
below or beside ours, for the whole machine (`/proc/vmstat`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MACHINE = Path("/proc/vmstat")
UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Kills:
    """The counts at one moment, by the file that has them."""

    counts: dict[Path, int]

    def since(self, before: "Kills") -> int:
        """How many there were after `before`."""
        return max(
            (count - before.counts.get(file, 0) for file, count in self.counts.items()), default=0
        )


def counted() -> Kills:
    """The counts now."""
    found = {file: _value(file, "oom_kill") for file in (*_files(), MACHINE)}
    return Kills({file: count for file, count in found.items() if count is not None})


def limit() -> int | None:
    """The smallest memory limit of our control groups in bytes; None if there is none."""
    found = []
    for folder in _folders():
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if text.isdigit() and int(text) < UNLIMITED:
                found.append(int(text))
    return min(found, default=None)


def _files() -> Iterator[Path]:
    for folder in _folders():
        yield folder / "memory.events"
        yield folder / "memory.oom_control"


def _folders() -> Iterator[Path]:
    """Our memory control groups and those that they are in, whichever version is mounted.

    In a container the mounted root is the container's own group, which has a limit and counts.
    """
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        roots = {"": (CGROUPS, CGROUPS / "unified"), "memory": (CGROUPS / "memory",)}
        for root in roots.get(controllers, ()):
            folder = root / path.lstrip("/")
            while folder != root:
                yield folder
                folder = folder.parent
            yield root


def _value(file: Path, name: str) -> int | None:
    for line in _read(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace")
    except OSError:
        return ""
