"""From what a failed process has said to a sentence about what to do.

Patterns are texts that the libraries print; the first that matches speaks. What ran out of memory
is told by `oom.shortage`.
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A known failure: what it was and what helps."""

    cause: str
    hint: str
    plain: bool = False
    """The last lines of the log say nothing more."""


NCCL = (
    "NCCL_DEBUG=INFO says more; NCCL_SOCKET_IFNAME names the network, NCCL_IB_DISABLE=1 does "
    "without InfiniBand"
)

FILES: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"Disk quota exceeded|Errno 122",
        Diagnosis(
            "your quota on the disk is used up",
            "make room, or --set output.directory=... on another disk; then --resume the run",
            plain=True,
        ),
    ),
    (
        r"No space left on device|Errno 28|PytorchStreamWriter failed writing",
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
        r"Errno 5\]|Input/output error|Stale file handle|Errno 116|Transport endpoint",
        Diagnosis(
            "a disk or its file server has a fault",
            "look at `dmesg`, and whether the folder is mounted; then --resume the run",
        ),
    ),
    (
        r"Errno 13\]|Permission denied \(os error 13\)",
        Diagnosis(
            "a file or folder is not open to you",
            "look at its owner (`ls -ld`); caches go where HF_HOME and TRITON_CACHE_DIR say",
        ),
    ),
    (
        r"Too many open files|Errno 24\]",
        Diagnosis(
            "too many files are open",
            "raise the limit (`ulimit -n 65536`), or --set training.loader_workers=0; "
            "then --resume the run",
        ),
    ),
    (
        r"can't start new thread|pthread_create failed|Errno 11\] Resource temporarily unavailable",
        Diagnosis(
            "no more processes or threads can be started",
            "look at `ulimit -u` and the job's limits; OMP_NUM_THREADS=4, a smaller data.workers "
            "and training.loader_workers need fewer",
        ),
    ),
    (
        r"MetadataIncompleteBuffer|HeaderTooLarge|HeaderTooSmall|InvalidHeader|"
        r"incomplete metadata, file not fully covered|PytorchStreamReader failed",
        Diagnosis(
            "a file of weights is cut short",
            "of the base model: `ft fetch RECIPE` checks the files; of a checkpoint: --resume the "
            "run, which looks at them",
        ),
    ),
)

HUB: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"GatedRepoError|Access to model .* is restricted|access (?:a )?gated repo",
        Diagnosis(
            "the model or data set is gated",
            "accept its terms on its page, then log in once with `hf auth login` or set HF_TOKEN",
        ),
    ),
    (
        r"RepositoryNotFoundError|40[13] Client Error|Invalid user token|is not a valid model "
        r"identifier",
        Diagnosis(
            "the hub does not know the model or data set, or does not show it to you",
            "check its name; if it is private or gated, log in with `hf auth login` or set "
            "HF_TOKEN: a token that has expired is refused, too",
        ),
    ),
    (
        r"429 Client Error|Too Many Requests",
        Diagnosis(
            "the hub has refused further requests for a while",
            "wait some minutes; then `ft fetch RECIPE`, and --resume the run with --offline",
        ),
    ),
    (
        r"OfflineModeIsEnabled|outgoing traffic has been disabled|couldn't connect to|"
        r"Max retries exceeded|Temporary failure in name resolution|LocalEntryNotFoundError|"
        r"(?:Read|Connect)Timeout\b",
        Diagnosis(
            "a file is not on this machine and cannot be fetched",
            "run `ft fetch RECIPE` where there is a network, or name local paths",
        ),
    ),
    (
        r"api_key not configured|wandb: ERROR (?:API key|.*(?:401|PERMISSION_ERROR))|"
        r"wandb\.errors\.\S*(?:Authentication|Usage)Error",
        Diagnosis("wandb has no key", "set WANDB_API_KEY, or WANDB_MODE=offline"),
    ),
    (
        r"wandb\.errors\.\S*Error",
        Diagnosis("wandb could not start", "WANDB_MODE=offline; `ft runs sync` uploads it later"),
    ),
)

DATA: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"DataLoader worker .*(?:is killed by signal|exited unexpectedly)",
        Diagnosis(
            "a process that loads batches has ended",
            "--set training.loader_workers=0 shows why",
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
)

GPU: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"device-side assert triggered",
        Diagnosis(
            "a computation on the GPU got a number that is out of range",
            "mostly a token or a label that the model has no row for: `ft inspect-tokens` finds "
            "those (FT537); with CUDA_LAUNCH_BLOCKING=1 the log names the place",
        ),
    ),
    (
        r"no kernel image is available",
        Diagnosis(
            "the environment's torch is not built for this GPU",
            "`ft backend install BACKEND --torch cuda`, or another GPU",
        ),
    ),
    (
        r"NVIDIA driver on your system is too old|driver version is insufficient",
        Diagnosis(
            "the GPU's driver is older than the environment's torch needs",
            "a newer driver, or torch for an older CUDA: ft backend install BACKEND --torch cu126",
        ),
    ),
    (
        r"uncorrectable ECC|fallen off the bus|NVLink error|CUDA error: hardware stack error",
        Diagnosis(
            "the GPU has a fault",
            "look at `nvidia-smi` and `dmesg`, tell the machine's owner; --resume on another one",
        ),
    ),
    (
        r"illegal memory access|misaligned address|unspecified launch failure|illegal instruction "
        r"was encountered",
        Diagnosis(
            "a computation on the GPU went wrong",
            "--set model.attention=sdpa and kernels off, one after another, show which one it is; "
            "if it comes at random, the GPU may have a fault (`dmesg`)",
        ),
    ),
    (
        r"busy or unavailable",
        Diagnosis(
            "the GPU is held by another program",
            "`nvidia-smi` lists it; in exclusive mode only one program can use a GPU",
        ),
    ),
    (
        r"invalid device ordinal",
        Diagnosis(
            "it needs more GPUs than it sees",
            "look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and distributed.gpus",
        ),
    ),
    (
        r"CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)",
        Diagnosis(
            "a library of CUDA could not start",
            "mostly the GPU's memory is nearly full: a smaller training.micro_batch_size; else "
            "`ft backend doctor BACKEND`",
        ),
    ),
    (
        r"FlashAttention only supports|[Ff]lash_?[Aa]ttention.*(?:not be installed|not installed)|"
        r"FlashAttention\S* has been toggled on",
        Diagnosis(
            "this GPU, or the environment, has no flash attention",
            "--set model.attention=sdpa",
        ),
    ),
    (
        r"loss scale already at minimum|Attempting to unscale FP16 gradients",
        Diagnosis(
            "float16 is too small for this training",
            "--set model.dtype=bfloat16, if the GPU knows it (Ampere and newer); else a lower "
            "training.learning_rate",
        ),
    ),
    (
        r"AMP is not supported on this GPU|fp8 is not supported on this GPU",
        Diagnosis(
            "this GPU does not know the number format",
            "--set model.dtype=float16 for GPUs before Ampere, fp8 needs Hopper; without a GPU try "
            "it with --smoke",
        ),
    ),
    (
        r"No CUDA GPUs are available|Torch not compiled with CUDA|Found no NVIDIA driver|"
        r"[Yy]our (?:setup|device) doesn't support bf16|CUDA unknown error",
        Diagnosis("this needs a GPU", "run it on a machine with one, or try it with --smoke"),
    ),
)

LIBRARIES: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"lib(?:cu|nv|nccl)\S*\.so\S*: cannot open shared object|compiled without GPU support|"
        r"CUDA Setup failed|undefined symbol: ",
        Diagnosis(
            "a compiled package does not fit the environment's torch, or its CUDA is not there",
            "`ft backend doctor BACKEND`; `ft backend install BACKEND --reinstall`; with an "
            "environment of your own load the module that it was made with",
        ),
    ),
    (
        r"version `(?:GLIBC|GLIBCXX|CXXABI)_\S+' not found",
        Diagnosis(
            "a package needs newer system libraries than this machine has",
            "load a module with a newer gcc, or use another image or node",
        ),
    ),
    (
        r"Error building extension|command '.*(c\+\+|g\+\+)' failed|CUDA_HOME does not exist",
        Diagnosis(
            "DeepSpeed could not build one of its parts",
            "install a C++ compiler (g++), or load the module that has one",
        ),
    ),
)

RANKS: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"EADDRINUSE|address already in use",
        Diagnosis("a port is taken", "start it again; another launcher holds the port"),
    ),
    (
        r"collective operation timeout|Timed out waiting \d+ms for (?:recv|send)",
        Diagnosis(
            "ranks have waited in vain for one another",
            "look in the log for one that failed, or did something else for long (evaluation, "
            f"saving, loading data), then --resume the run; {NCCL}",
        ),
    ),
    (
        r"ncclSystemError|unhandled system error|ncclRemoteError|ncclInternalError|"
        r"RendezvousConnectionError|client socket has (?:failed|timed out)",
        Diagnosis("the ranks cannot talk to one another", NCCL),
    ),
)

KNOWN = FILES + HUB + DATA + GPU + LIBRARIES + RANKS

SIGNALS: Mapping[int, Diagnosis] = {
    signal.SIGKILL: Diagnosis(
        "something killed it (SIGKILL), and the kernel counts no kill for memory here",
        "was it you, or a job's limit? `dmesg` and the job's own report may tell",
    ),
    signal.SIGBUS: Diagnosis(
        "memory that stands for a file was not there (SIGBUS)",
        "is /dev/shm full (docker run --shm-size=8g)? Else a file that was read was cut short, or "
        "its server went away: look at `dmesg`",
    ),
    signal.SIGILL: Diagnosis(
        "it used an instruction that this CPU does not have (SIGILL)",
        "something was built on a newer machine: empty the folder of built parts "
        "($TORCH_EXTENSIONS_DIR), or use a node of the same kind",
    ),
    signal.SIGSEGV: Diagnosis(
        "compiled code crashed (SIGSEGV)",
        "`ft backend doctor BACKEND`; then --set model.attention=sdpa, and other kernels off",
    ),
}


def diagnose(text: str, exit_code: int) -> Diagnosis | None:
    """The first known cause in what a process said, or in how it ended."""
    for pattern, diagnosis in KNOWN:
        if re.search(pattern, text):
            return diagnosis
    return SIGNALS.get(exit_code - 128 if exit_code > 128 else -exit_code)
