"""A run's folder as it begins: the recipe, the rendered files, the record."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from orchestrator import __version__, plan, shell, smoke, yaml_out
from orchestrator.environments.environment import Environment
from orchestrator.errors import LaunchError
from orchestrator.files import write_atomic
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.record import Record, new_layout, now
from orchestrator.setup_run import Resolved


def create(resolved: Resolved, environment: Environment) -> tuple[plan.Plan, Record]:
    """Make the run's folder and write the recipe, the rendered files and the record."""
    layout = new_layout(Path(resolved.recipe.output.directory), resolved.recipe.name)
    try:
        return _written(resolved, environment, layout)
    except BaseException:
        shutil.rmtree(layout.root, ignore_errors=True)
        raise


def _written(
    resolved: Resolved, environment: Environment, layout: RunLayout
) -> tuple[plan.Plan, Record]:
    planned = resolved.plan(layout.root, str(environment.python))
    for file in planned.files:
        write_atomic(layout.rendered / file.name, file.text)
    if planned.context.smoke:
        write_atomic(
            Path(planned.context.sources[0]), smoke.data_for(planned.recipe.data.sources[0])
        )
    write_atomic(layout.recipe, yaml_out.dump(resolved.recipe.model_dump(mode="json")))
    record = Record(layout, {})
    record.update(
        version=1,
        id=layout.id,
        status="waiting",
        recipe=resolved.recipe.name,
        recipe_file=str(resolved.origin.resolve()),
        backend=resolved.recipe.backend,
        started=now(),
        ft=__version__,
        environment=environment_facts(environment),
        git=git_commit(resolved.origin.resolve().parent),
        smoke=bool(resolved.facts.get("smoke")),
        changes=list(resolved.changes),
        findings=[finding.as_dict() for finding in resolved.findings],
        fingerprint=Path(planned.context.prepared).name,
        context=planned.context.as_dict(),
        commands={s.name: list(s.argv) for s in planned.stages if s.argv},
        stages={stage.name: {"status": "waiting"} for stage in planned.stages},
    )
    return planned, record


def environment_facts(environment: Environment) -> dict[str, Any]:
    """What the record keeps of the backend environment."""
    return {
        "name": environment.name,
        "prefix": str(environment.prefix),
        "origin": environment.origin,
        "release": environment.release,
    }


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that the recipe is in, and whether it has changes; None if none."""
    env = {"PATH": shell.system_path(), "HOME": str(Path.home()), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        code, commit, _ = shell.capture(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], env=env, timeout=10
        )
        if code:
            return None
        _, status, _ = shell.capture(
            ["git", "-C", str(folder), "status", "--porcelain", "-uno"], env=env, timeout=10
        )
    except (LaunchError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}
