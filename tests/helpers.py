"""What tests share: small recipes, and a run of the command line with its three outputs."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.recipe.load import Loaded, from_document
from orchestrator.recipe.yaml_source import parse
from orchestrator.yaml_out import dump
from tests import forking

ROOT = Path(__file__).resolve().parent.parent

BASIC: dict[str, Any] = {
    "name": "basic",
    "backend": "axolotl",
    "model": {"base": "mistralai/Mistral-7B-v0.3"},
    "data": {
        "sources": [{"path": "user/data", "format": "alpaca"}],
        "chat_template": "alpaca",
    },
    "adapter": {"type": "lora"},
    "training": {"epochs": 1, "learning_rate": 1e-4},
}


def document(**changes: Any) -> dict[str, Any]:
    """The basic recipe with dotted fields changed: `document(**{"training.epochs": 2})`.

    A value of None removes the field.
    """
    result = copy.deepcopy(BASIC)
    for field, value in changes.items():
        section = result
        *parents, last = field.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(last, None)
        else:
            section[last] = value
    return result


def loaded(**changes: Any) -> Loaded:
    """The changed basic recipe, loaded; raises what loading raises."""
    parsed, findings = parse(dump(document(**changes)), "recipe.yaml")
    return from_document(parsed, findings, Path("recipe.yaml"))


def write_recipe(path: Path, **changes: Any) -> Path:
    """The changed basic recipe as a file."""
    path.write_text(dump(document(**changes)), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


def ft(
    *arguments: str | Path, cwd: Path | None = None, before: Sequence[str] = (), **environ: str
) -> Outcome:
    """Run `ft` in a process of its own; `before` is a command that runs the rest of its line."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environ}
    if not before and forking.possible(env):
        return Outcome(*forking.run([str(a) for a in arguments], cwd or ROOT, env))
    done = subprocess.run(
        [*before, sys.executable, "-m", "orchestrator.cli.main", *map(str, arguments)],
        cwd=cwd or ROOT,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
