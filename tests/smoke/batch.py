"""Many recipes prepared by one process per backend: its start is nearly all of the time."""

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator import smoke
from orchestrator.backends.base import Target
from orchestrator.environments.environment import Environment, find, process_environment
from orchestrator.files import read_json
from orchestrator.fingerprint import text_digest
from orchestrator.labels.prepared import Prepared
from orchestrator.plan import Context, Plan, build
from orchestrator.recipe.load import load
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import shipped
from orchestrator.setup_run import PROBE

WALK = f"""
import sys
sys.path.insert(0, {str(PROBE.parent)!r})
sys.argv, requests = sys.argv[:1], sys.argv[1:]
from pathlib import Path
from ftprobe.process import leave, run
for request in requests:
    run(Path(request))
leave(0)
"""


def twin_recipe(name: str, backend: str, **changes: Any) -> Recipe:
    """A shipped recipe's smoke form for a backend."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    recipe = load(shipped("recipes") / f"{name}.yaml", overrides=overrides, backend=backend).recipe
    return smoke.smoke_recipe(recipe, smoke.family_of(recipe)).recipe


def planned(recipe: Recipe, folder: Path, base: Path, rows: Iterable[dict[str, Any]]) -> Plan:
    """The plan of a run in `folder` on rows of the source's own shape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = folder.parent / "data" / f"{text_digest(text)[:16]}.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(text, encoding="utf-8")
    context = Context(
        root=str(folder),
        python="python",
        probe=str(PROBE),
        prepared=str(folder / "prepared"),
        target=Target("cpu", bf16=False),
        base=str(base),
        sources=(str(data),),
        offline=True,
    )
    plan = build(recipe, context)
    for file in plan.files:
        path = plan.layout.rendered / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
    return plan


def run_requests(environment: Environment, requests: Iterable[Path], log: Path) -> None:
    """Serve all requests in one process."""
    with log.open("ab") as stream:
        subprocess.run(
            [str(environment.python), "-c", WALK, *map(str, requests)],
            env=process_environment(environment, offline=True, extra={"OMP_NUM_THREADS": "1"}),
            stdout=stream, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip


def make_twins(families: Iterable[str], folder: Path, backend: str) -> dict[str, Path]:
    """The tiny models of some families, made in a backend's environment."""
    corpus = PROBE.parent.parent / "smoke_data"
    requests = []
    made = {family: folder / family for family in families}
    folder.mkdir(parents=True, exist_ok=True)
    for family, directory in made.items():
        requests.append(folder / f"{family}.json")
        requests[-1].write_text(
            json.dumps(
                {
                    "version": 1, "backend": backend, "task": "twin", "family": family,
                    "directory": str(directory), "seed": 42,
                    "corpus": [str(corpus / f"{name}.jsonl")
                               for name in sorted(set(smoke.FILES.values()))],
                    "result": str(folder / f"{family}.result.json"),
                }
            )
        )  # fmt: skip
    run_requests(find(backend), requests, folder / "twins.log")
    return made


def prepare(backend: str, plans: Sequence[Plan], log: Path) -> list[list[Prepared]]:
    """Preprocess all plans: the training data of each, and what was held out if it lies apart."""
    run_requests(find(backend), [plan.layout.request("preprocess") for plan in plans], log)
    return [_prepared(plan, log) for plan in plans]


def _prepared(plan: Plan, log: Path) -> list[Prepared]:
    answer = read_json(plan.layout.result("preprocess"))
    assert isinstance(answer, dict), log.read_text()[-2000:]
    assert "error" not in answer, answer
    data, tokenizer = answer["dataset"], Path(answer["tokenizer"])
    return [Prepared(Path(data[name]), tokenizer) for name in ("train", "validation") if data[name]]
