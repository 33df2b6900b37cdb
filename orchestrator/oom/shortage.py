"""What ran out of memory, and how much was missing, from what a failed process has said.

Each pattern is a text that a library, the kernel or Slurm prints; recorded ones are in
`tests/oom_messages.json`. The first that matches speaks, so those that quote another come first.
They are as long as the message is: a question about `CUDA out of memory` may be in the data.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.errors import BackendError

Kind = Literal["gpu", "host", "killed", "pinned", "workers", "shared", "kernel"]

CAUSES: Mapping[Kind, str] = {
    "gpu": "the GPU's memory is full",
    "host": "the machine's memory is full",
    "killed": "the system killed it, because the machine's or the job's memory was full",
    "pinned": "no page-locked memory is left on the machine",
    "workers": "a process that loads batches was killed, because memory was full",
    "shared": "the machine's shared memory (/dev/shm) is full",
    "kernel": "a Triton kernel needs more shared memory than this GPU has on its chip",
}

PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("kernel", r"out of resource: (?:shared memory|triton)"),
    ("shared", r"killed by signal: Bus error|insufficient shared memory \(shm\)|"
               r"unable to (?:write to file|allocate shared memory).*(?:torch_|shm)|"
               r"while creating shared memory segment|No space left on device: '/dev/shm"),
    ("workers", r"DataLoader worker \(pid[^)]*\) is killed by signal: Killed"),
    ("pinned", r"pin_memory[^\n]*\n(?:[^\n]*\n){0,4}[^\n]*(?:CUDA|HIP) error: out of memory|"
               r"cudaHostAlloc[^\n]*(?:out of memory|failed)|cudaErrorHostMemory"),
    ("gpu", r"(?:CUDA|HIP|XPU|NPU|MPS backend) out of memory\b[^\n]*Tried to allocate|"
            r"MPS backend out of memory|OutOfMemoryError: Allocation on device|"
            r"No executable batch size found|"
            r"(?:CUDA|HIP) error: out of memory|cudaErrorMemoryAllocation|hipErrorOutOfMemory|"
            r"(?:CUBLAS|CUSOLVER|CUSPARSE|CUDNN|HIPBLAS|ROCBLAS)_STATUS_ALLOC_FAILED|"
            r"Error out of memory at line \d+ in file|Cuda failure 2? ?'out of memory'|"
            r"Failed to CUDA calloc"),
    ("killed", r"[Dd]etected \d+ oom[-_ ]kill event|task[s]? [\d,-]+: Out Of Memory|"
               r"\bOUT_OF_MEMORY\b|OOMKilled|Memory cgroup out of memory: Kill"),
    ("host", r"DefaultCPUAllocator: (?:not enough memory|can't allocate|out of memory)|"
             r"(?m:^(?:\[\w+\]:\s*)?[\w.]*MemoryError\b(?::|$))|Caught MemoryError in|"
             r"std::bad_alloc|[Cc]annot allocate memory|memory allocation of \d+ bytes failed"),
)  # fmt: skip

ENDED_BY_KILL = (
    r"Signal 9 \(SIGKILL\) received|exitcode\s*: -9|exits with return code = -9|"
    r"abruptly died|terminated abruptly"
)
"""What launchers and process pools say when one of their processes was killed."""

UNITS = {"bytes": 1, "B": 1, "KB": 1 << 10, "KiB": 1 << 10, "MB": 1 << 20, "MiB": 1 << 20,
         "GB": 1 << 30, "GiB": 1 << 30, "TB": 1 << 40, "TiB": 1 << 40}  # fmt: skip
_SIZE = r"([\d.]+) ?(bytes|[KMGT]?i?B)\b"

TRIED = (
    rf"[Tt]ried to allocate {_SIZE}",
    rf"Unable to allocate {_SIZE} for an array",
    rf"Failed to CUDA calloc {_SIZE}",
    r"(?:malloc|realloc) of size (\d+)()",
    r"memory allocation of (\d+)() bytes failed",
    r"memory segment \S+ \(size (\d+)()\)",
    r"out of resource: [\w ]+,? Required: (\d+)()",
)
TOTAL = (
    rf"total capac(?:i)?ty of {_SIZE}",
    rf"{_SIZE} total capacity",
    r"Hardware limit(?:ation)?: ?(\d+)()",
)
OTHERS = re.compile(rf"Process \d+ has {_SIZE} memory in use")
"""Other programs on the same GPU, as torch 2.1 and later name them."""
FREE = (rf"of which {_SIZE} (?:is|are) free", rf"; {_SIZE} free;")
LARGEST = 1 << 50
"""Above it, a number in a message is an overflow of the driver's counters."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Bytes, as far as a message tells: asked for, there in all, free, and held by others."""

    tried: int | None = None
    total: int | None = None
    free: int | None = None
    others: int | None = None

    @property
    def text(self) -> str:
        """In words; empty if nothing is known."""
        parts = []
        if self.tried is not None:
            parts.append(f"{shown(self.tried)} more were asked for")
        if self.free is not None and self.total is not None:
            parts.append(f"{shown(self.free)} of {shown(self.total)} were free")
        elif self.total is not None:
            parts.append(f"there are {shown(self.total)}")
        if self.others:
            parts.append(f"{shown(self.others)} are held by other programs on it")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Shortage:
    """One failure of memory."""

    kind: Kind
    amounts: Amounts = Amounts()

    @property
    def text(self) -> str:
        """The cause with its amounts."""
        amounts = self.amounts.text
        return CAUSES[self.kind] + (f" ({amounts})" if amounts else "")

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"kind": self.kind, "amounts": asdict(self.amounts)}


class OutOfMemory(BackendError):
    """A backend's process ended because memory ran out."""

    def __init__(
        self, message: str, shortage: Shortage, *, hint: str = "", detail: str = ""
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.shortage = shortage


def recognise(
    text: str, exit_code: int, *, kills: int = 0, limit: int | None = None
) -> Shortage | None:
    """What ran out of memory; None if the failure was of another kind.

    `kills` is how many processes the kernel has killed for memory meanwhile, `limit` the bytes of
    our control group: a SIGKILL alone may have come from anybody.
    """
    for kind, pattern in PATTERNS:
        found = re.search(pattern, text)
        if found:
            return Shortage(kind, read_amounts(text[max(0, found.start() - 200) :]))
    if kills and (exit_code in (-9, 137) or re.search(ENDED_BY_KILL, text)):
        return Shortage("killed", Amounts(total=limit))
    return None


def read_amounts(text: str) -> Amounts:
    """The first amounts of each kind in a message."""
    message = next((line for line in text.splitlines() if OTHERS.search(line)), "")
    others = sum(_bytes(found) for found in OTHERS.finditer(message))
    return Amounts(_first(TRIED, text), _first(TOTAL, text), _first(FREE, text), others or None)


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            number = _bytes(found)
            return number if number < LARGEST else None
    return None


def _bytes(found: re.Match[str]) -> int:
    return int(float(found[1]) * UNITS.get(found[2], 1))


def shown(size: int) -> str:
    """Bytes for people: `1.5 GiB`."""
    for name, unit in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
