"""What the backends themselves say of a folder's configurations, beside what ft says.

Files that a configuration only names are not looked for: ft's checks are those of the recipe alone,
and a DeepSpeed file that a backend's parser opens is put in its place here.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.deep import ask, item, verdicts
from orchestrator.environments.environment import ensure
from orchestrator.findings import Finding, RecipeError, errors_of
from orchestrator.importing.importer import Imported
from orchestrator.problems import find_problems
from orchestrator.recipe.load import Loaded, from_document
from orchestrator.recipe.yaml_source import parse

DEEPSPEED = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_optimization": {"stage": 2},
    "bf16": {"enabled": "auto"},
}


def compare(results: Sequence[Imported], folder: Path, gpu: str) -> dict[str, Any]:
    """The table's figures: of each file what ft says, what the backend says of both forms."""
    with tempfile.TemporaryDirectory(prefix="ft-corpus-") as name:
        scratch = Path(name)
        ours = [_own(result, scratch) for result in results]
        passed = [loaded for loaded, errors in ours if loaded and not errors]
        answers = iter(ask(passed, gpu=gpu, install=False))
        theirs = [
            errors_of(next(answers)) if loaded and not errors else [] for loaded, errors in ours
        ]
        sources = _sources(results, scratch, gpu)
    rows = [
        _row(str(result.file.relative_to(folder)), *parts)
        for result, *parts in zip(results, ours, theirs, sources, strict=True)
    ]
    return _figures(rows)


def _own(result: Imported, scratch: Path) -> tuple[Loaded | None, list[Finding]]:
    """The imported recipe and what ft refuses in it."""
    if not result.recipe:
        return None, errors_of(result.findings)
    folder = scratch / str(len(list(scratch.iterdir())))
    folder.mkdir()
    _stand_in(result.recipe.distributed.deepspeed_file, folder)
    document, findings = parse(result.text, "recipe.yaml")
    try:
        loaded = from_document(document, findings, folder / "recipe.yaml")
    except RecipeError as error:
        return None, errors_of(error.findings)
    return loaded, errors_of(find_problems(loaded, data=False))


def _stand_in(name: object, folder: Path) -> None:
    if isinstance(name, str) and not PurePosixPath(name).is_absolute() and ".." not in name:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(DEEPSPEED), encoding="utf-8")


def _sources(results: Sequence[Imported], scratch: Path, gpu: str) -> list[list[str]]:
    """Why the backend refuses each file as it is."""
    found: list[list[str]] = [[] for _ in results]
    for backend in ("axolotl", "llamafactory"):
        chosen = [index for index, r in enumerate(results) if r.kind.kind == backend]
        for index in chosen:
            recipe = results[index].recipe
            _stand_in(recipe.distributed.deepspeed_file if recipe else None, scratch)
        if chosen:
            items = [item(results[index].file.resolve(), gpu) for index in chosen]
            answers = verdicts(ensure(backend, install=False), items, scratch)
            for index, answer in zip(chosen, answers, strict=True):
                found[index] = [str(message) for message in answer["messages"]]
    return found


def _row(
    file: str,
    ours: tuple[Loaded | None, list[Finding]],
    theirs: list[Finding],
    source: list[str],
) -> dict[str, Any]:
    return {
        "file": file,
        "imports": ours[0] is not None,
        "errors": [f"{finding.code} {finding.message}" for finding in ours[1]],
        "refused": [f"{finding.code} {finding.message}" for finding in theirs],
        "source": source,
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    passed = [row for row in rows if row["imports"] and not row["errors"]]
    rejected = [row for row in rows if row["source"]]
    return {
        "training": len(rows),
        "imports": sum(row["imports"] for row in rows),
        "passes": len(passed),
        "accepted": sum(not row["refused"] for row in passed),
        "refused_after_passing": [row for row in passed if row["refused"]],
        "refused_by_ft_only": [row for row in rows if row["errors"] and not row["source"]],
        "source_refused": len(rejected),
        "source_refused_by_ft": [row for row in rejected if row["errors"]],
        "source_repaired": [row for row in rejected if row in passed and not row["refused"]],
        "source_not_seen": [row for row in rejected if row in passed and row["refused"]],
    }


def show(figures: dict[str, Any]) -> None:
    """The table and the files behind it, for people."""
    names = ("training", "imports", "passes", "accepted", "source_refused")
    titles = ("training", "imports", "pass ft", "accepted", "sources refused")
    print(f"{'':14}" + "".join(f"{title:>17}" for title in titles) + f"{'by ft too':>12}"
          f"{'repaired':>10}{'unseen':>8}")  # fmt: skip
    for backend, row in figures.items():
        print(f"{backend:14}" + "".join(f"{row[name]:17}" for name in names)
              + f"{len(row['source_refused_by_ft']):12}{len(row['source_repaired']):10}"
              f"{len(row['source_not_seen']):8}")  # fmt: skip
    kinds = {
        "refused_after_passing": "BUG: passes ft, refused by the backend",
        "source_refused_by_ft": "refused by both",
        "source_repaired": "refused as it was, accepted as a recipe",
        "refused_by_ft_only": "refused by ft, accepted by the backend's validator",
    }
    for backend, row in figures.items():
        for kind, title in kinds.items():
            for one in row[kind]:
                print(f"{title}: {backend} {one['file']}")
                for who, said in (("ft", one["errors"]), ("backend", one["refused"]),
                                  ("backend, source", one["source"])):  # fmt: skip
                    for line in said:
                        print(f"    {who}: {' '.join(line.split())[:300]}")
