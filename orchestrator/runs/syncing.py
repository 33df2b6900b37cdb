"""Uploading what wandb kept on disk while a run had no network.

`wandb sync` of the run's own backend environment does it. It waits for ever for a server that does
not answer (wandb 0.31.0), so the server is asked first, and each upload has a limit.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import shell
from orchestrator.checks.machine import wandb_key
from orchestrator.environments.environment import Environment, process_environment
from orchestrator.errors import BackendEnvironmentError, LaunchError, UsageError
from orchestrator.runs.record import Record

SERVER = "https://api.wandb.ai"
ANSWER_SECONDS = 20.0
UPLOAD_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """A folder that wandb has written offline, of one start of a training."""

    run: str
    folder: Path

    @property
    def synced(self) -> bool:
        """Whether wandb has uploaded it: its own mark."""
        return any(self.folder.glob("*.wandb.synced"))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"run": self.run, "folder": str(self.folder), "synced": self.synced}


def offline_runs(record: Record) -> Iterator[OfflineRun]:
    """What wandb has kept of a run, oldest first; a resumed training has several."""
    for folder in sorted(record.layout.root.glob("wandb/offline-run-*")):
        yield OfflineRun(record.layout.id, folder)


def ready() -> None:
    """Whether anything can be uploaded from here.

    Raises:
        UsageError: there is no key.
        BackendEnvironmentError: the server does not answer.
    """
    if not wandb_key():
        raise UsageError(
            "wandb has no key here", hint="export WANDB_API_KEY=..., from your wandb settings"
        )
    server = os.environ.get("WANDB_BASE_URL") or SERVER
    try:
        urllib.request.urlopen(server, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BackendEnvironmentError(
            f"wandb's server {server} cannot be reached: {reason}",
            hint="run this where there is a network; look at HTTPS_PROXY and WANDB_BASE_URL",
        ) from error


def upload(found: OfflineRun, environment: Environment) -> None:
    """Upload one folder.

    Raises:
        BackendEnvironmentError: wandb fails; with its last lines.
    """
    program = environment.bin / "wandb"
    if not program.exists():
        raise BackendEnvironmentError(
            f"there is no wandb in {environment.prefix}", hint="install wandb there"
        )
    env = process_environment(environment, offline=False, extra={"WANDB_MODE": "online"})
    argv = [str(program), "sync", str(found.folder)]
    try:
        code, out, error = shell.capture(
            argv, env=env, cwd=found.folder.parents[1], timeout=UPLOAD_SECONDS
        )
    except LaunchError as failure:
        code, out, error = 1, "", failure.message
    if code or not found.synced:
        raise BackendEnvironmentError(
            f"wandb could not upload {found.folder.name} of {found.run}",
            detail="\n".join((error or out).strip().splitlines()[-8:]),
            hint="is the key right, and may it write to that project? Then run this again: what is "
            "uploaded is not uploaded twice",
        )
