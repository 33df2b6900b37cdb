"""From the last lines of a log to a sentence about what to do.

Patterns are texts that the libraries print; the first that matches speaks. What ran out of memory
is told by `oom.shortage`.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A known failure: what it was and what helps."""

    cause: str
    hint: str
    plain: bool = False
    """The last lines of the log say nothing more."""


KNOWN: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"No space left on device|Errno 28|Disk quota exceeded|Errno 122|"
        r"PytorchStreamWriter failed writing",
        Diagnosis(
            "the disk is full",
            "make room, or --set output.directory=... on another disk; then --resume the run",
            plain=True,
        ),
    ),
    (
        r"File too large|Errno 27",
        Diagnosis(
            "a file became larger than this process, or the file system, allows",
            "look at `ulimit -f`; then --resume the run",
            plain=True,
        ),
    ),
    (
        r"Read-only file system|Errno 30",
        Diagnosis(
            "the file system can only be read",
            "look at `dmesg` and `mount`: disks with faults become so; then --resume the run",
            plain=True,
        ),
    ),
    (
        r"EADDRINUSE|address already in use",
        Diagnosis("a port is taken", "start it again; another launcher holds the port"),
    ),
    (
        r"401 Client Error|GatedRepoError|Access to model .* is restricted|gated repo",
        Diagnosis(
            "the model or data set is gated",
            "accept its terms on its page, then log in once with `hf auth login` or set HF_TOKEN",
        ),
    ),
    (
        r"OfflineModeIsEnabled|outgoing traffic has been disabled|couldn't connect to|"
        r"Max retries exceeded|Temporary failure in name resolution|LocalEntryNotFoundError",
        Diagnosis(
            "a file is not on this machine and cannot be fetched",
            "run `ft fetch RECIPE` where there is a network, or name local paths",
        ),
    ),
    (
        r"KeyError: '(input|query)'",
        Diagnosis(
            "the data has no column for the input",
            "name it (columns: {input: ...}), or say that there is none (columns: {input: null})",
        ),
    ),
    (
        r"Cannot find valid samples",
        Diagnosis("not one row fits the format", "check data.sources: format, columns, roles"),
    ),
    (
        r"is not supported on this|No CUDA GPUs are available|Torch not compiled with CUDA|"
        r"Found no NVIDIA driver",
        Diagnosis("this needs a GPU", "run it on a machine with one, or try it with --smoke"),
    ),
    (
        r"Error building extension|command '.*(c\+\+|g\+\+)' failed|CUDA_HOME does not exist",
        Diagnosis(
            "DeepSpeed could not build one of its parts",
            "install a C++ compiler (g++), or load the module that has one",
        ),
    ),
    (
        r"wandb.*api_key not configured|wandb: ERROR",
        Diagnosis("wandb has no key", "set WANDB_API_KEY, or WANDB_MODE=offline"),
    ),
)


def diagnose(tail: str, exit_code: int) -> Diagnosis | None:
    """The first known cause in the last lines of a log, or in how the process ended."""
    for pattern, diagnosis in KNOWN:
        if re.search(pattern, tail):
            return diagnosis
    if exit_code in (-9, 137):
        return Diagnosis(
            "something killed it (SIGKILL), and the kernel counts no kill for memory here",
            "was it you, or a job's limit? `dmesg` and the job's own report may tell",
        )
    return None
