"""What ran out of memory is read from recorded messages and from the kernel's own count."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import last_words, shell
from orchestrator.oom import failure, kills
from orchestrator.oom.advice import elsewhere
from orchestrator.oom.shortage import CAUSES, Amounts, Shortage, recognise, shown
from orchestrator.probe.ftprobe import process as probe
from tests.helpers import ROOT

MESSAGES: list[dict[str, Any]] = json.loads((ROOT / "tests" / "oom_messages.json").read_text())
CGROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


@pytest.mark.parametrize("message", MESSAGES, ids=[m["source"] for m in MESSAGES])
def test_recorded_messages(message: dict[str, Any]) -> None:
    found = recognise(message["text"], message["exit_code"])
    assert (found.kind if found else None) == message["kind"]
    if found:
        amounts = found.as_dict()["amounts"]
        known = {name: value for name, value in amounts.items() if value is not None}
        assert known == pytest.approx(message["amounts"], abs=1)
        assert CAUSES[found.kind] in found.text
        assert elsewhere(found.kind)


def test_a_message_among_many_lines_is_found() -> None:
    around = "step 3 of 10\n" * 500
    for message in MESSAGES:
        found = recognise(f"{around}{message['text']}\n{around}", message["exit_code"])
        assert (found.kind if found else None) == message["kind"], message["source"]


@pytest.mark.parametrize(
    "text", ["", "Signal 9 (SIGKILL) received by PID 178", "One of the subprocesses abruptly died"]
)
def test_a_kill_is_for_memory_only_if_the_kernel_counts_one(text: str) -> None:
    code = 1 if text else -9
    assert recognise(text, code) is None
    found = recognise(text, code, kills=1, limit=1 << 30)
    assert found == Shortage("killed", Amounts(total=1 << 30))
    assert "there are 1.0 GiB" in found.text


def test_an_error_beside_a_kill_of_somebody_else_is_no_shortage() -> None:
    assert recognise("ValueError: no such column", 1, kills=1) is None


def test_sizes_for_people() -> None:
    assert [shown(n) for n in (5, 2048, 3 << 20, 3 << 29)] == [
        "5 bytes", "2.0 KiB", "3.0 MiB", "1.5 GiB",
    ]  # fmt: skip


@contextmanager
def memory_limit(name: str, size: int) -> Iterator[list[str]]:
    """A control group with a limit, and the command that enters it; version 1 or 2.

    Skips the test where none can be made, which takes root and a memory controller.
    """
    for root in CGROUPS:
        folder = root / name
        file = folder / ("memory.limit_in_bytes" if root.name == "memory" else "memory.max")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if file.exists():
                file.write_text(str(size))
                enter = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
                yield ["sh", "-c", enter, "sh"]
                return
        finally:
            folder.rmdir()
    pytest.skip("control groups with a memory limit can be made by root only")


def test_the_kernel_counts_what_it_kills(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from orchestrator.oom import kills\n"
        "before = kills.counted()\n"
        "def run(code): return subprocess.run([sys.executable, '-c', code]).returncode\n"
        "small = run('pass'), kills.counted().since(before)\n"
        "large = run('x = bytearray(1 << 30)'), kills.counted().since(before)\n"
        "print(*small, *large, kills.limit())\n"
    )
    with memory_limit(f"ft-test-{tmp_path.name}-kills", 100 << 20) as enter:
        code, out, error = shell.capture(
            [*enter, sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}
        )
    assert code == 0, error
    assert out.split() == ["0", "0", "-9", "1", str(100 << 20)]


def test_without_the_kernels_files_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kills, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(kills, "MACHINE", tmp_path / "vmstat")
    assert kills.counted().since(kills.counted()) == 0
    assert kills.limit() is None


def test_version_2_of_control_groups_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "self").write_text("0::/job/step\n")
    step = tmp_path / "job" / "step"
    step.mkdir(parents=True)
    (step / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
    (step / "memory.max").write_text("max\n")
    (step.parent / "memory.max").write_text("4096\n")
    monkeypatch.setattr(kills, "MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(kills, "CGROUPS", tmp_path)
    monkeypatch.setattr(kills, "MACHINE", tmp_path / "vmstat")
    before = kills.counted()
    assert before.counts == {step / "memory.events": 2}
    (step / "memory.events").write_text("oom_kill 5\n")
    assert kills.counted().since(before) == 3
    assert kills.limit() == 4096


def test_a_container_sees_its_own_group_as_the_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "memory.events").write_text("oom_kill 2\n")
    (tmp_path / "memory.max").write_text("8192\n")
    monkeypatch.setattr(kills, "MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(kills, "CGROUPS", tmp_path)
    monkeypatch.setattr(kills, "MACHINE", tmp_path / "vmstat")
    assert kills.counted().counts == {tmp_path / "memory.events": 2}
    assert kills.limit() == 8192


def words(answer: object, log: Path, since: int = 0) -> last_words.LastWords:
    return last_words.of_process(answer, log, since=since)


def test_only_the_last_process_is_read_from_a_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(f"{CUDA}\n")
    before, size = kills.counted(), log.stat().st_size
    process = shell.start(["/bin/sh", "-c", "echo fine; exit 1"], env={}, log=log)
    done = shell.follow(process, log=log)
    assert shell.last_lines(log, since=size) == "fine"
    assert failure.of_process("train", done, words(None, log, size), log, before=before) is None
    again = failure.of_process("merge", done, words(None, log), log, before=before)
    assert again
    assert "a GPU with more memory" in again.hint


CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
REPORT = (
    "Root Cause (first observed failure):\n  host : n1\n  rank : 3 (local_rank: 3)\n"
    "  exitcode : 1 (pid: 7)\n"
)


def beside_nccl() -> dict[str, Any]:
    """An error in a line of code that names what it has nothing to do with."""
    try:
        raise KeyError("input")  # NCCL
    except KeyError as caught:
        return probe.failure(caught)


def raised(error: BaseException, cause: BaseException | None = None) -> dict[str, Any]:
    """The answer of a process that ended with this exception."""
    try:
        raise error from cause
    except BaseException as caught:
        return probe.failure(caught)


@pytest.mark.parametrize(
    ("answer", "log", "kind"),
    [
        (raised(KeyError("input")), f"recovered from: {CUDA}", None),
        (beside_nccl(), f"recovered from: {CUDA}", None),
        (raised(KeyError("input")), f"{CUDA}\n{REPORT}", "gpu"),  # rank 0 was not the first
        (raised(ValueError("inputs: why 'CUDA out of memory'?")), "", None),
        (raised(ValueError("none"), cause=MemoryError()), "", "host"),
        (raised(RuntimeError("NCCL error: unhandled cuda error")), f"[rank1]: {CUDA}", "gpu"),
        (raised(EOFError()), "", None),
        (raised(SystemExit(1)), "Error out of memory at line 88 in file x.cu", "gpu"),
        (None, f"{CUDA}\r\n", "gpu"),
        (None, f"{CUDA}\n" + "frame #1: of another rank\n" * 1900, "gpu"),
        (None, "x" * 3000 + CUDA, "gpu"),
        (None, "    except torch.OutOfMemoryError:\nhow do I fix MemoryError in pandas?", None),
    ],
)
def test_the_exception_speaks_before_the_log(
    tmp_path: Path, answer: object, log: str, kind: str | None
) -> None:
    file = tmp_path / "train.log"
    file.write_bytes(b"\xff\xfe not text\n" + log.encode())
    found = recognise(words(answer, file).evidence, 1)
    assert (found.kind if found else None) == kind


def test_other_programs_on_the_gpu_are_told(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    held = "Process 12 has 40.00 GiB memory in use. Process 7 has 1.00 GiB memory in use."
    said = f"{CUDA} capacity of 79.15 GiB of which 1.06 GiB is free. {held}\n"
    log.write_text(said + said)  # by two ranks
    done = shell.Completed((), 1, 0.0)
    found = failure.of_process("train", done, words(None, log), log, before=kills.counted())
    assert found
    assert "41.0 GiB are held by other programs" in found.message
    assert "nvidia-smi" in found.hint
