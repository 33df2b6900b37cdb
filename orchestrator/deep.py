"""`ft recipe validate --deep`: the backend's own judgement, asked in its environment.

Nothing is loaded or downloaded: the rendered files go through the backend's own parser for a GPU
that is named, not for the machine that asks. A recipe that passes our checks and not this is a bug
of ours, and the finding says so. Findings: `FT521` refused, `FT522` a key that is dropped without a
word, `FT523` what the backend warns of.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import shell
from orchestrator.backends.base import Paths, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.distributed import own_file
from orchestrator.environments.environment import Environment, ensure, process_environment
from orchestrator.errors import BackendError, UsageError
from orchestrator.files import read_json, write_atomic, write_json
from orchestrator.findings import Finding
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import local_path

PROBE = Path(__file__).resolve().parent / "probe" / "stage.py"

GPUS: dict[str, dict[str, Any]] = {
    "a100": {"bf16": True, "fp8": False, "tf32": True, "compute_capability": "sm_80"},
    "h100": {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"},
    "cpu": {"bf16": False, "fp8": False, "tf32": False, "compute_capability": "sm_00"},
}
"""What the target can do, by the names that `--gpu` takes."""

KINDS = {"train.yaml": "train", "preprocess.yaml": "train", "merge.yaml": "export"}
"""The files that are judged and what reads them, the most telling first."""


@dataclass(frozen=True, slots=True)
class Question:
    """One rendered file of one recipe."""

    recipe: int
    file: str
    path: Path


def known_gpu(name: str) -> str:
    """The name of a target.

    Raises:
        UsageError: it is none.
    """
    if name not in GPUS:
        raise UsageError(f"unknown GPU {name!r}", hint=f"one of {', '.join(GPUS)}")
    return name


def ask(
    recipes: Sequence[Loaded], *, gpu: str = "h100", install: bool = True
) -> list[list[Finding]]:
    """The findings of each recipe's backend, in the same order; one process per backend.

    Raises:
        BackendEnvironmentError: the backend is not there.
        BackendError: its process failed as a whole.
    """
    found: list[list[Finding]] = [[] for _ in recipes]
    heard: dict[int, set[tuple[str, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="ft-deep-") as scratch:
        for backend in dict.fromkeys(loaded.recipe.backend for loaded in recipes):
            environment = ensure(backend, install)
            chosen = [i for i, loaded in enumerate(recipes) if loaded.recipe.backend == backend]
            questions = [
                question
                for index in chosen
                for question in _write(index, recipes[index], gpu, Path(scratch, str(index)))
            ]
            items = [_asked(q, recipes[q.recipe].recipe, gpu) for q in questions]
            answers = verdicts(environment, items, Path(scratch))
            for question, verdict in zip(questions, answers, strict=True):
                new = _unheard(verdict, heard.setdefault(question.recipe, set()))
                label = BACKENDS[backend].label
                found[question.recipe] += _findings(label, question.file, new)
    return found


def target_of(recipe: Recipe, gpu: str) -> Target:
    """The machine that a recipe is judged for."""
    spread = recipe.distributed
    processes = 1 if spread.strategy == "none" else (spread.gpus or 1) * spread.nodes
    return Target("cpu" if gpu == "cpu" else "cuda", GPUS[gpu]["bf16"], processes)


def _write(index: int, loaded: Loaded, gpu: str, folder: Path) -> list[Question]:
    recipe, beside = loaded.recipe, loaded.file.resolve().parent

    def where(name: str) -> str:
        path = local_path(name, beside) if name else None
        return str(path) if path else name

    paths = Paths(
        rendered=str(folder),
        prepared=str(folder / "prepared"),
        training=str(folder / "training"),
        merged=str(folder / "merged"),
        base=where(recipe.model.base),
        sources=tuple(where(source.path) for source in recipe.data.sources),
        validation_sources=tuple(where(s.path) for s in recipe.data.validation_sources),
        template=where(recipe.data.chat_template),
        deepspeed=own_file.of_recipe(recipe, beside),
    )
    rendered = BACKENDS[recipe.backend].render(recipe, paths, target_of(recipe, gpu))
    for file in rendered.files:
        write_atomic(folder / file.name, file.text)
    made = {file.name for file in rendered.files}
    names = [name for name in KINDS if name in made]
    return [Question(index, name, folder / name) for name in names]


def _asked(question: Question, recipe: Recipe, gpu: str) -> dict[str, Any]:
    return item(question.path, gpu, KINDS[question.file], target_of(recipe, gpu).processes)


def item(config: Path, gpu: str, kind: str = "train", processes: int = 1) -> dict[str, Any]:
    """One configuration to judge, for so many GPUs of that name."""
    capabilities = {**GPUS[gpu], "n_gpu": processes}
    return {"config": str(config), "kind": kind, "capabilities": capabilities}


def verdicts(
    environment: Environment, items: Sequence[Mapping[str, Any]], scratch: Path
) -> list[dict[str, Any]]:
    """What the backend says of each configuration, in the same order; from one process.

    Relative paths in a configuration count from `scratch`.

    Raises:
        BackendError: the process failed as a whole.
    """
    request = scratch / f"{environment.name}.request.json"
    result = scratch / f"{environment.name}.result.json"
    log = scratch / f"{environment.name}.log"
    write_json(
        request,
        {
            "version": 1,
            "backend": environment.name,
            "task": "validate_all",
            "result": str(result),
            "events": None,
            "configs": items,
        },
    )
    # whatever GPUs this machine has: the target's are described in the request
    env = process_environment(environment, offline=True, extra={"CUDA_VISIBLE_DEVICES": ""})
    argv = [str(environment.python), str(PROBE), str(request)]
    process = shell.start(argv, env=env, cwd=scratch, log=log)
    done = shell.follow(process, log=log)
    answer = read_json(result)
    if done.exit_code == 0 and isinstance(answer, dict) and "verdicts" in answer:
        found: list[dict[str, Any]] = answer["verdicts"]
        return found
    said = answer.get("error", {}) if isinstance(answer, dict) else {}
    raise BackendError(
        f"{environment.name} could not be asked: {said.get('message') or done.reason}",
        detail=done.tail,
        hint=f"ft backend doctor {environment.name}",
    )


def _unheard(verdict: Mapping[str, Any], heard: set[tuple[str, str]]) -> dict[str, list[str]]:
    """The verdict without what was said of another file of the same recipe."""
    new: dict[str, list[str]] = {}
    for kind in ("messages", "unknown_keys", "warnings"):
        lines = dict.fromkeys(str(line) for line in verdict[kind])
        new[kind] = [line for line in lines if (kind, line) not in heard]
        heard.update((kind, line) for line in lines)
    return new


def _findings(label: str, file: str, verdict: Mapping[str, Any]) -> list[Finding]:
    found = [
        Finding(
            "FT521",
            "error",
            f"{label} refuses this recipe ({file}), though ft's own checks do not: {message}",
            fix="change the setting that it names; that ft did not see it is a bug in ft: "
            "please report it with the recipe",
        )
        for message in verdict["messages"]
    ]
    found += [
        Finding(
            "FT522",
            "warning" if key.startswith("datasets[") else "error",
            f"{label} drops {key!r} of {file} without a word",
            fix="remove it if it is under native; else it is a bug in ft: please report it",
        )
        for key in verdict["unknown_keys"]
    ]
    found += [
        Finding("FT523", "note", f"{label} says: {' '.join(line.split())[:300]}")
        for line in verdict["warnings"]
    ]
    return found
