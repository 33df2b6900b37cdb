"""Programs that some tests need, brought by Debian's packages where this user may install them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing(programs: Sequence[str], packages: Sequence[str]) -> str:
    """Install packages unless their programs are there; why a program is missing, or nothing."""
    if not _absent(programs):
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return (
            f"{', '.join(_absent(programs))} not found, and no right to install (root, apt-get): "
            f"{' '.join(packages)}"
        )
    with (Path(tempfile.gettempdir()) / "ft-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests at once would find apt's own lock taken
        reason = _install(packages) if _absent(programs) else ""
    absent = _absent(programs)
    return reason or (f"apt-get brought no {', '.join(absent)}" if absent else "")


def _absent(programs: Sequence[str]) -> list[str]:
    return [name for name in programs if shutil.which(name, path=PATH) is None]


def _install(packages: Sequence[str]) -> str:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for argv in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            argv, env=environ, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            return f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()[-300:]}"
    return ""
