"""`ft cluster check`: does the profile hold on this login node? Looks, and submits nothing.

Findings: `FT801` a command, `FT802` the controller, `FT803` the jobs as Slurm sees them (partition,
account, qos, GPUs, memory, time), `FT804` modules and environment activation, `FT805` a backend,
`FT806` the scratch folder, `FT807` what compute nodes cannot see.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator import shell
from orchestrator.clusters import prelude
from orchestrator.clusters.profile import BackendPlace, Cluster
from orchestrator.environments import registry
from orchestrator.environments.home import choices, home
from orchestrator.environments.locks import RELEASES
from orchestrator.errors import BackendEnvironmentError, LaunchError
from orchestrator.findings import Finding
from orchestrator.launchers import queue, slurm

ROOM = 50_000_000_000
SOCKET_PATH = 107
SOCKET_NAME = len("/tmp/12345678/pymp-12345678/listener-12345678")
LOCAL_FILE_SYSTEMS = {"tmpfs", "ramfs", "overlay"}
STARTED_MARK = "ft-started"

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Result:
    """What one look found; `finding` says what is wrong with it."""

    name: str
    detail: str
    finding: Finding | None = None

    @property
    def level(self) -> Level:
        """`ok`, or the finding's level."""
        return "error" if self.finding and self.finding.level == "error" else (
            "warning" if self.finding else "ok"
        )  # fmt: skip


def look(cluster: Cluster, backends: tuple[str, ...]) -> Iterator[Result]:
    """Every look, in the order in which one depends on another."""
    missing = [name for name in slurm.PROGRAMS if shutil.which(name) is None]
    if missing:
        yield _bad("commands", "FT801", f"not found: {', '.join(missing)}",
                   "run this on a login node; if Slurm is a module there, load it")  # fmt: skip
        return
    yield Result("commands", ", ".join(slurm.PROGRAMS))
    controller = _controller()
    yield controller
    if controller.level == "ok":
        yield from _jobs(cluster)
    for backend in backends:
        yield from _environment(cluster, backend)
    yield from _scratch(cluster)
    yield from _shared(cluster)


def chosen_backends(cluster: Cluster) -> tuple[str, ...]:
    """The backends that the profile or this ft knows a place of; all, if that is none."""
    found = [
        name
        for name in RELEASES
        if cluster.place(name) != BackendPlace()
        or registry.given_by_variable(name)
        or choices(name)
    ]
    return tuple(found or RELEASES)


def _bad(name: str, code: str, message: str, fix: str, level: str = "error") -> Result:
    kind: Literal["error", "warning"] = "error" if level == "error" else "warning"
    return Result(name, message, Finding(code, kind, message, fix=fix))


def _controller() -> Result:
    try:
        _, out, error = shell.capture(["scontrol", "ping"], env=queue.environment(), timeout=30)
    except LaunchError as failure:
        out, error = "", failure.message
    up = [line for line in out.splitlines() if re.search(r"\b(is|are) .*\bUP\b", line)]
    if up:  # one of them is enough, whatever the others do
        return Result("controller", up[0])
    said = (error or out).strip().splitlines() or ["no reason given"]
    return _bad("controller", "FT802", f"Slurm does not answer: {said[-1]}",
                "try `scontrol ping`; is SLURM_CONF what the site says?")  # fmt: skip


def _jobs(cluster: Cluster) -> Iterator[Result]:
    """Slurm's own verdict about a training job and a job of one task."""
    shapes = {
        "training jobs": slurm.training_options(cluster, cluster.nodes, cluster.time),
        "one-task jobs": slurm.one_task_options(cluster),
    }
    for name, options in shapes.items():
        text = "\n".join(["#!/bin/bash", *slurm.directives(options), "true", ""])
        code, message = _tested(text)
        if code == 0:
            yield Result(name, message)
        else:
            yield _bad(name, "FT803", f"Slurm refuses {name}: {message}",
                       f"compare the profile with `sinfo` and your account: "
                       f"{' '.join(slurm.written(option) for option in options)}")  # fmt: skip


def _tested(text: str) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        try:
            code, out, error = shell.capture(
                ["sbatch", "--test-only", file.name], env=queue.environment(), timeout=60
            )
        except LaunchError as failure:
            return 1, failure.message
    said = [line.removeprefix("sbatch: ") for line in (error + out).splitlines() if line.strip()]
    told = said[-3:] if code else said[-1:]  # a site's own words come before Slurm's
    return code, "; ".join(told) or "no reason given"


def _environment(cluster: Cluster, backend: str) -> Iterator[Result]:
    """The prelude of a job runs here, and the backend can be imported after it."""
    try:
        prefix = activated(cluster, backend)
    except LaunchError as failure:
        yield _bad(f"{backend}: start of a job", "FT804", failure.message, failure.hint)
        return
    loaded = ", ".join(cluster.modules) or "no modules"
    yield Result(f"{backend}: start of a job", f"{loaded}; variables set")
    try:
        environment = (
            registry.from_prefix(backend, Path(prefix), chosen_by="the cluster profile")
            if prefix
            else registry.resolve(backend)
        )
    except BackendEnvironmentError as failure:
        yield _bad(f"{backend}: environment", "FT805", failure.message, failure.hint)
        return
    argv = [str(environment.python), "-I", "-c", f"import torch, {backend}"]
    try:
        code, _, error = shell.capture(argv, env=queue.environment(), timeout=300)
    except LaunchError as failure:
        code, error = 1, failure.message
    if code:
        last = error.strip().splitlines()[-1] if error.strip() else "no reason given"
        yield _bad(f"{backend}: environment", "FT805",
                   f"{environment.prefix} cannot be imported: {last}",
                   f"`ft backend doctor {backend}`")  # fmt: skip
        return
    wanted = RELEASES[backend]
    if environment.release != wanted:
        yield _bad(f"{backend}: environment", "FT805",
                   f"{environment.prefix} has {environment.release}, ft is made for {wanted}",
                   f"install {backend}=={wanted} there", "warning")  # fmt: skip
    else:
        yield Result(f"{backend}: environment", f"{environment.prefix}, {environment.release}")


def activated(cluster: Cluster, backend: str) -> str:
    """The backend's prefix after the prelude has run here; empty when it is ft's own.

    Raises:
        LaunchError: the prelude failed: a module, the environment, the scratch folder.
    """
    name = f"FT_{backend.upper()}_PREFIX"
    text = "\n".join(
        [
            *prelude.lines(cluster, backend),
            f'printf "\\n%s=%s\\n" {STARTED_MARK} "${{{name}:-}}"',
            *(['rmdir "$TMPDIR" 2> /dev/null || true'] if cluster.scratch else []),
        ]
    )
    code, out, error = shell.capture(["bash", "-c", text], env=queue.environment(), timeout=120)
    for line in out.splitlines():
        if code == 0 and line.startswith(f"{STARTED_MARK}="):
            return line.partition("=")[2]
    said = [line for line in error.splitlines() if line.strip()]
    ours = [line.removeprefix("ft: ") for line in said if line.startswith("ft: ")]
    raise LaunchError(
        ours[-1] if ours else f"the start of a batch script ends with exit code {code}",
        detail="\n".join(line for line in said if not line.startswith("ft: "))[-2000:],
        hint="correct modules, environment or scratch in the cluster profile",
    )


def _scratch(cluster: Cluster) -> Iterator[Result]:
    if not cluster.scratch:
        yield _bad("scratch", "FT806", "the profile names no scratch folder: caches fill your home",
                   "scratch: /path in the profile", "warning")  # fmt: skip
        return
    folder = Path(cluster.scratch)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"ft")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield _bad("scratch", "FT806", f"{folder} cannot be written: {error.strerror}",
                   "scratch: a folder of your project on the shared file system")  # fmt: skip
        return
    if len(str(folder)) + SOCKET_NAME > SOCKET_PATH:
        longest = SOCKET_PATH - SOCKET_NAME
        yield _bad("scratch", "FT806",
                   f"{folder} is longer than {longest} characters, too long for Python's sockets",
                   "a shorter path; a link will do", "warning")  # fmt: skip
    elif free < ROOM:
        yield _bad("scratch", "FT806", f"{folder} has {free / 1e9:.0f} GB free",
                   "models and checkpoints need tens of GB: make room", "warning")  # fmt: skip
    else:
        yield Result("scratch", f"{folder}, {free / 1e9:,.0f} GB free")


def _shared(cluster: Cluster) -> Iterator[Result]:
    """ft and its home must be where compute nodes see them; only the obvious is found here."""
    for name, path in {
        "ft": Path(__file__).resolve().parent.parent,
        "FT_HOME": _home(cluster),
    }.items():
        kind = _file_system(path)
        if kind in LOCAL_FILE_SYSTEMS:
            yield _bad(name, "FT807", f"{path} is on a {kind}, which compute nodes may not see",
                       "install ft, and set environment.home, on a shared file system",
                       "warning")  # fmt: skip
        else:
            yield Result(name, f"{path} ({kind or 'unknown'} file system)")


def _home(cluster: Cluster) -> Path:
    return Path(cluster.environment.home) if cluster.environment.home else home()


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, by the longest mount point above it."""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        _, point, this, *_ = line.split(" ")
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best):
            best, kind = point, this
    return kind
