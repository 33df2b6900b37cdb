"""What importing makes of a folder of configurations: `python tools/corpus.py FOLDER [--json]`.

Counts by kind, round trips, the share of keys in neutral fields, and time. A `dataset_info.json`
in a folder above a LLaMA-Factory configuration describes its data sets. `--deep` asks the backends
too, in their environments: of each recipe that passes ft's checks, and of each file as it is.
"""

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import verdicts

from orchestrator.deep import GPUS
from orchestrator.importing.importer import Imported, import_file
from orchestrator.ui import screen

BACKENDS = ("axolotl", "llamafactory")


def measure(folder: Path, *, describe: bool = True, deep: str = "") -> dict[str, Any]:
    """Import every configuration of a folder; `deep` names the GPU that backends judge for."""
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".yaml", ".yml", ".json"))
    infos = {f.parent: json.loads(f.read_text("utf-8")) for f in folder.rglob("dataset_info.json")}
    crashes: dict[str, str] = {}
    results: list[Imported] = []
    begin = time.perf_counter()
    for file in files:
        info = next((infos[p] for p in file.parents if p in infos), None) if describe else None
        try:
            results.append(import_file(file, info=info))
        except Exception:  # what is counted here
            crashes[str(file.relative_to(folder))] = traceback.format_exc(limit=-3)
    seconds = time.perf_counter() - begin
    return {
        "files": len(files),
        "seconds": round(seconds, 2),
        "crashes": crashes,
        "kinds": dict(Counter(result.kind.kind for result in results).most_common()),
        "backends": {
            name: _backend([r for r in results if r.kind.kind == name], folder) for name in BACKENDS
        },
        "deep": {
            name: verdicts.compare([r for r in results if r.kind.kind == name], folder, deep)
            for name in BACKENDS
            if deep
        },
    }


def _backend(results: list[Imported], folder: Path) -> dict[str, Any]:
    made = [result for result in results if result.recipe]
    exact = [result for result in made if not result.differences]
    native = Counter(key for result in made for key in result.native)
    unknown = Counter(f.field for r in results for f in r.findings if f.code == "FT511")
    return {
        "training": len(results),
        "imported": len(made),
        "exact": len(exact),
        "exact_share": _share(len(exact), len(results)),
        "not_exact": {
            str(result.file.relative_to(folder)): [
                f"{d.key}: {d.source!r} -> {d.rendered!r}" for d in result.differences
            ]
            or [f.message for f in result.findings if f.level == "error"]
            for result in results
            if result not in exact
        },
        "keys": sum(result.keys for result in made),
        "neutral_share": _share(sum(r.neutral for r in made), sum(r.keys for r in made)),
        "neutral_share_top": _share(
            sum(r.top_neutral for r in made), sum(r.top_keys for r in made)
        ),
        "native_keys": dict(native.most_common()),
        "unknown_keys": dict(unknown.most_common()),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 1.0


def show(figures: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"{figures['files']} files in {figures['seconds']} s, {len(figures['crashes'])} crashes")
    for file, trace in figures["crashes"].items():
        print(f"  {file}\n{trace}")
    print("kinds: " + ", ".join(f"{kind} {count}" for kind, count in figures["kinds"].items()))
    print(f"{'':14}{'training':>9}{'imported':>9}{'exact':>7}{'share':>8}{'neutral':>9}{'top':>8}")
    for name, row in figures["backends"].items():
        print(
            f"{name:14}{row['training']:9}{row['imported']:9}{row['exact']:7}"
            f"{row['exact_share']:8.1%}{row['neutral_share']:9.1%}{row['neutral_share_top']:8.1%}"
        )
    for name, row in figures["backends"].items():
        for file, reasons in row["not_exact"].items():
            print(f"not exact: {name} {file}: {'; '.join(reasons)}")
        listed = ", ".join(f"{key} {count}" for key, count in list(row["native_keys"].items())[:40])
        print(f"native keys of {name}: {listed}")
        listed = ", ".join(f"{key} {n}" for key, n in list(row["unknown_keys"].items())[:40])
        print(f"unknown keys of {name}: {listed}")
    if figures["deep"]:
        verdicts.show(figures["deep"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--names-only", action="store_true", help="use no dataset_info.json")
    parser.add_argument("--deep", action="store_true", help="ask the backends, too")
    parser.add_argument("--gpu", default="h100", choices=GPUS, help="what --deep judges for")
    arguments = parser.parse_args()
    figures = measure(
        arguments.folder,
        describe=not arguments.names_only,
        deep=arguments.gpu if arguments.deep else "",
    )
    if arguments.json:
        screen.json_mode = True
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 1 if figures["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
