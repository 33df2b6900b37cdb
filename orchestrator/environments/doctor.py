"""Is an environment fit for work? Facts that need no import, then the backend's own word.

The second part runs the probe inside the environment: it imports the backend, which takes its
time and is the only proof that it can be imported. Python keeps the compiled modules of that
import, so after `ft backend doctor` the first run starts 25 seconds earlier (measured, two cores);
where an environment is shared read-only, whoever made it should let the doctor see it once.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from orchestrator import shell
from orchestrator.environments import home, locks, registry
from orchestrator.environments.environment import Environment, process_environment
from orchestrator.errors import FtError
from orchestrator.files import read_json, write_json

PROBE = Path(__file__).parent.parent / "probe" / "stage.py"
PROBE_SECONDS = 600.0
ROOM = 2 * 10**9
POOL_SECONDS = 120.0
# datasets prepares data in pools of the `multiprocess` package. That is another one for each
# Python; any of them can be imported, and only starting a process tells if it is the right one.
POOL = """
import multiprocess

if __name__ == "__main__":
    with multiprocess.get_context("spawn").Pool(2) as pool:
        assert pool.map_async(abs, [1, -2]).get(100) == [1, 2]
    print("works", multiprocess.__version__)
"""

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `remedy` is empty when nothing is wrong."""

    check: str
    level: Level
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """The JSON form that `--json` prints."""
        return asdict(self)


def examine(backend: str) -> list[Check]:
    """Everything that is known about a backend's environment; never raises for what is wrong there.

    Raises:
        UsageError: there is no such backend.
    """
    locks.known(backend)
    try:
        environment = registry.resolve(backend)
        facts = registry.ask(environment.python, backend)
    except FtError as error:
        detail = f"{error.message}\n{error.detail}".strip()
        return [Check("environment", "fail", detail, error.hint)]
    found = [
        Check("environment", "ok", f"{environment.prefix} ({_origin(environment)})"),
        *_release(environment, facts[backend]),
        *_room(),
    ]
    return [*found, process_pools(environment), *probe(environment)]


def _origin(environment: Environment) -> str:
    if environment.origin == "ft":
        stamp = environment.stamp
        return f"made by ft from lock {stamp['lock']}, torch {stamp['build']}"
    if registry.given_by_variable(environment.name):
        return f"given by {registry.variable(environment.name)}"
    return "given by ft backend use"


def _release(environment: Environment, release: str) -> Iterator[Check]:
    """ft's own environments must be as locked; with a prefix, another release may work."""
    backend, pinned = environment.name, locks.RELEASES[environment.name]
    if release == pinned:
        yield Check("release", "ok", f"{backend} {release}")
    elif environment.origin == "ft":
        detail = f"{backend} {release or 'missing'} where ft installed {pinned}: it was changed"
        yield Check("release", "fail", detail, f"ft backend install {backend} --reinstall")
    else:
        detail = f"{backend} {release}; ft is made for and tested with {pinned}"
        yield Check("release", "warn", detail, f"install {backend}=={pinned} in that prefix")


def _room() -> Iterator[Check]:
    folder = home.home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB left in {folder}"
    if free < ROOM:
        yield Check("disk", "warn", detail, "make room, or set FT_HOME to a larger disk")
    else:
        yield Check("disk", "ok", detail)


def process_pools(environment: Environment) -> Check:
    """Can data be prepared by several processes?"""
    with tempfile.TemporaryDirectory(prefix="ft-doctor-") as scratch:
        script = Path(scratch) / "pool.py"
        script.write_text(POOL, encoding="utf-8")
        try:
            code, output, errors = shell.capture(
                [str(environment.python), str(script)],
                env=process_environment(environment, offline=True),
                cwd=Path(scratch),
                timeout=POOL_SECONDS,
            )
        except FtError as error:
            return Check("process pools", "fail", error.message, _again(environment))
    if code == 0 and output.startswith("works"):
        return Check("process pools", "ok", f"multiprocess {output.split()[-1]}")
    last = (errors or output).strip().splitlines()[-1:]
    detail = ": ".join(["two processes cannot be started", *last])
    return Check("process pools", "fail", detail, _again(environment))


def probe(environment: Environment) -> list[Check]:
    """What the probe finds inside the environment."""
    with tempfile.TemporaryDirectory(prefix="ft-doctor-") as scratch:
        request, result = Path(scratch) / "request.json", Path(scratch) / "result.json"
        task = {"version": 1, "backend": environment.name, "task": "doctor", "events": None}
        write_json(request, {**task, "result": str(result)})
        env = process_environment(environment, offline=True)
        argv = [str(environment.python), str(PROBE), str(request)]
        try:
            code, output, errors = shell.capture(
                argv, env=env, cwd=Path(scratch), timeout=PROBE_SECONDS
            )
        except FtError as error:
            return [Check("import", "fail", error.message, _again(environment))]
        answer = read_json(result)
        if isinstance(answer, dict) and isinstance(answer.get("checks"), list):
            return [
                Check(
                    str(entry.get("check", "")),
                    _level(entry.get("level")),
                    str(entry.get("detail") or ""),
                    str(entry.get("remedy") or ""),
                )
                for entry in answer["checks"]
            ]
        if isinstance(answer, dict) and isinstance(failure := answer.get("error"), dict):
            detail = str(failure.get("message") or failure.get("type"))
            return [
                Check("import", "fail", detail, str(failure.get("hint") or _again(environment)))
            ]
        last = "\n".join((errors or output).strip().splitlines()[-15:])
        detail = f"the check inside the environment ended with exit code {code}\n{last}".strip()
        return [Check("import", "fail", detail, _again(environment))]


def _level(value: object) -> Level:
    """The probe's level; anything it should not say is a failure and not overlooked."""
    return value if value in ("ok", "warn", "fail") else "fail"


def _again(environment: Environment) -> str:
    if environment.origin == "ft":
        return f"ft backend install {environment.name} --reinstall"
    return "mend that prefix, or let ft make an environment: `ft backend use NAME --default`"
