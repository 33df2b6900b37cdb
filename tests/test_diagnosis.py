"""What a failed process has said becomes a cause and a way out, and nothing else is claimed."""

import re
import signal

import pytest

from orchestrator.diagnosis import KNOWN, SIGNALS, diagnose

SAID = {
    "OSError: [Errno 122] Disk quota exceeded: '/home/me/x'": "quota",
    "safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, kind: "
    'StorageFull, message: "No space left on device" })': "disk is full",
    "OSError: [Errno 27] File too large": "larger than this process",
    "OSError: [Errno 30] Read-only file system: '/data'": "only be read",
    "OSError: [Errno 116] Stale file handle: '/scratch/x'": "file server",
    "OSError: [Errno 5] Input/output error": "file server",
    "PermissionError: [Errno 13] Permission denied: '/scratch/cache'": "not open to you",
    "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='hub')": "cannot be fetched",
    "RuntimeError: DataLoader worker (pid 1) is killed by signal: Segmentation fault. ": "loads "
    "batches",
    "RuntimeError: unable to open shared memory object </torch_24291_3> in read-write mode: Too "
    "many open files (24)": "too many files",
    "OpenBLAS blas_thread_init: pthread_create failed for thread 5 of 64: Resource temporarily "
    "unavailable": "processes or threads",
    "RuntimeError: can't start new thread": "processes or threads",
    "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer":
    "cut short",
    "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central "
    "directory": "cut short",
    "OSError: You are trying to access a gated repo.\nMake sure to have access to it at\n401 "
    "Client Error.": "gated",
    "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for "
    "url. If you are trying to access a private or gated repo, make sure you are authenticated.":
    "does not know",
    "OSError: me/typo is not a local folder and is not a valid model identifier listed on": "not "
    "know",
    "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url": "refused",
    "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach it": "cannot be fetched",
    "wandb.errors.errors.UsageError: api_key not configured (no-tty)": "no key",
    "wandb.errors.CommError: Run initialization has timed out after 90.0 sec.": "wandb could not",
    "KeyError: 'input'": "no column",
    "RuntimeError: Cannot find valid samples, check `data/README.md`": "not one row",
    "RuntimeError: CUDA error: device-side assert triggered": "out of range",
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "built "
    "for this GPU",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).": "driver",
    "RuntimeError: CUDA error: uncorrectable ECC error encountered": "has a fault",
    "RuntimeError: CUDA error: an illegal memory access was encountered": "went wrong",
    "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable": "another program",
    "RuntimeError: CUDA error: invalid device ordinal": "more GPUs",
    "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`":
    "could not start",
    "RuntimeError: FlashAttention only supports Ampere GPUs or newer.": "flash attention",
    "Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting "
    "run.": "float16",
    "ValueError: bf16 requested, but AMP is not supported on this GPU. Requires Ampere": "number "
    "format",
    "ValueError: Your setup doesn't support bf16/gpu.": "needs a GPU",
    "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory":
    "does not fit",
    "ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi": "does not fit",
    "ImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.29' not found": "newer system",
    "RuntimeError: Error building extension 'cpu_adam'": "build",
    "DistNetworkError: The server socket has failed to listen. port: 29500, code: -98, name: "
    "EADDRINUSE, message: address already in use": "port",
    "[rank1]:[E] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, "
    "OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600026 milliseconds before timing out.": "vain",
    "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, unhandled system error, NCCL "
    "version 2.18.1": "cannot talk",
}  # fmt: skip


@pytest.mark.parametrize("text", SAID)
def test_known_failures(text: str) -> None:
    found = diagnose(f"step 3\n{text}\n", 1)
    assert found
    assert SAID[text] in found.cause


def test_every_known_failure_has_its_message() -> None:
    for pattern, diagnosis in KNOWN:
        assert any(re.search(pattern, text) for text in SAID), diagnosis.cause


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wandb: ERROR Failed to sample metric: gpu\nValueError: shapes differ",
        "RuntimeError: torch._C._gds_register_buffer is not supported on this platform",
        "ValueError: no such column",
    ],
)
def test_nothing_is_claimed(text: str) -> None:
    assert diagnose(text, 1) is None
    assert diagnose(text, -signal.SIGABRT) is None


@pytest.mark.parametrize("number", SIGNALS)
def test_signals(number: int) -> None:
    assert diagnose("", -number) == diagnose("", 128 + number) == SIGNALS[number]
