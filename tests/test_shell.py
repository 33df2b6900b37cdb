"""Processes: their environment, their end, and what is said of them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from orchestrator import shell
from orchestrator.errors import LaunchError


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return stat != "Z"


def test_environment_is_an_allow_list() -> None:
    source = {"HOME": "/h", "PYTHONPATH": "x", "CONDA_PREFIX": "x", "HF_HOME": "c",
              "PIP_INDEX_URL": "x", "LC_ALL": "C", "VIRTUAL_ENV": "x"}  # fmt: skip
    assert shell.base_environment(source) == {"HOME": "/h", "HF_HOME": "c", "LC_ALL": "C"}


def test_secrets_never_reach_a_record() -> None:
    shown = shell.without_secrets({"HF_TOKEN": "a", "WANDB_API_KEY": "b", "HOME": "/h"})
    assert shown == {"HF_TOKEN": "***", "WANDB_API_KEY": "***", "HOME": "/h"}


def test_output_goes_to_the_log_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    code = "import sys; print('one'); print('10%\\r20%\\r30%'); sys.exit(3)"
    process = shell.start([sys.executable, "-c", code], env={}, log=log)
    done = shell.follow(process, log=log)
    assert (done.exit_code, done.tail, done.reason) == (3, "one\n30%", "ended with exit code 3")


def test_what_another_process_said_before_is_not_taken_for_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for line in ("No space left", "a bug"):
        process = shell.start([sys.executable, "-c", f"print({line!r})"], env={}, log=log)
        done = shell.follow(process, log=log)
    assert done.tail == "a bug"
    assert log.read_text().splitlines() == ["No space left", "a bug"]


def test_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot start"):
        shell.start(["/none"], env={}, log=tmp_path / "l")
    with pytest.raises(LaunchError, match="did not answer"):
        shell.capture(["sleep", "9"], env={"PATH": os.defpath}, timeout=0.1)


def test_an_interruption_ends_the_whole_group(tmp_path: Path) -> None:
    log, pids = tmp_path / "l", tmp_path / "pids"
    child = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import subprocess, sys, time, pathlib, os\n"
        f"c = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{c.pid}}')\n"
        "time.sleep(60)\n"
    )
    process = shell.start([sys.executable, "-c", code], env={}, log=log)

    def press_ctrl_c() -> None:
        if pids.exists() and len(pids.read_text().split()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shell.follow(process, log=log, on_poll=press_ctrl_c)
    time.sleep(0.2)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_killed_by_a_signal_says_which(tmp_path: Path) -> None:
    log = tmp_path / "l"
    process = shell.start(["sleep", "60"], env={"PATH": os.defpath}, log=log)
    os.kill(process.pid, signal.SIGKILL)
    assert shell.follow(process, log=log).reason == "was ended by SIGKILL"
