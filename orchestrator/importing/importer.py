"""A file as a recipe: map, render, compare, and put what differs under `native`."""

import dataclasses
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import yaml_out
from orchestrator.backends import fields
from orchestrator.backends.base import Paths, Target
from orchestrator.backends.keys import load_keys
from orchestrator.backends.llamafactory.data import dataset_info
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks.method import PREQUANTIZED
from orchestrator.findings import Finding, Level, Place
from orchestrator.importing import axolotl, llamafactory
from orchestrator.importing.dataset_info import complete
from orchestrator.importing.detect import Detected, detect
from orchestrator.importing.draft import Draft
from orchestrator.importing.effective import effective, same, without_null
from orchestrator.importing.known import Screen
from orchestrator.importing.modernise import Modern
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.yaml_source import parse, read_text

ENTRIES = ("datasets", "test_datasets", "pretraining_dataset")
ROUNDS = 3
"""A correction may move a default that is worked out from another key."""

LLAMAFACTORY_DATA = ("dataset", "eval_dataset")


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value the rendered recipe would change."""

    key: str
    source: Any
    rendered: Any


@dataclass(slots=True)
class Imported:
    """What became of a file."""

    file: Path
    kind: Detected
    findings: list[Finding] = dataclasses.field(default_factory=list)
    recipe: Recipe | None = None
    text: str = ""
    differences: list[Difference] = dataclasses.field(default_factory=list)
    keys: int = 0
    neutral: int = 0
    top_keys: int = 0
    top_neutral: int = 0
    native: list[str] = dataclasses.field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of the source's keys that neutral fields hold."""
        return self.neutral / self.keys if self.keys else 1.0


def import_file(
    file: Path, *, info: Mapping[str, Any] | None = None, strict: bool = False
) -> Imported:
    """Import one configuration; nothing is written.

    Without a recipe in the result, the findings say why. `info` is a `dataset_info.json` that
    describes the data sets which a LLaMA-Factory configuration names.
    """
    text, findings = read_text(file)
    if findings:
        return Imported(file, Detected("other"), findings)
    document, problems = parse(text, str(file), yaml_1_1=True)
    found = [_softened(problem) for problem in problems]
    if any(finding.level == "error" for finding in found):
        return Imported(file, Detected("other"), found)
    kind = detect(document.value)
    result = Imported(file, kind, found)
    if not kind.training:
        result.findings.append(
            Finding(
                "FT510",
                "error",
                f"this is {kind.label}, not a training configuration",
                Place(str(file), 1, 1),
                fix=kind.advice,
            )
        )
        return result
    backend = kind.kind
    modern = Modern(backend, document)
    level: Level = "error" if strict else "warning"
    screen = Screen(backend, document, level)
    config = screen.known(modern.names(without_null(document.value)))
    config = modern.values(config)
    result.findings += [*screen.findings, *modern.notes]
    _into_recipe(result, config, backend, info)
    if result.recipe:
        left_out = [finding for finding in screen.findings if finding.code == "FT511"]
        result.text = _head(file, backend, document.comment, left_out) + result.text
    return result


def _softened(finding: Finding) -> Finding:
    """Duplicate keys: the backends' readers take the last one without a word."""
    if finding.code != "FT004":
        return finding
    return Finding("FT004", "warning", finding.message, finding.place, finding.field, finding.fix)


def _into_recipe(
    result: Imported, config: dict[str, Any], backend: str, info: Mapping[str, Any] | None
) -> None:
    draft = Draft()
    draft.document = {"name": name_of(result.file), "backend": backend}
    if backend == "axolotl":
        axolotl.draft(config, draft)
    else:
        info = with_folder(config, info) if llamafactory.described(config, info) else None
        llamafactory.draft(config, draft, info)
    lora = fields.take(draft.document, "adapter.type") == "lora"
    if lora and PREQUANTIZED.search(str(fields.take(draft.document, "model.base")).split("/")[-1]):
        draft.put("output.merge", False)
        draft.put("output.export", False)
    recipe, missing = draft.settle()
    if recipe is None:
        for name in missing:
            result.findings.append(
                Finding(
                    "FT513",
                    "error",
                    f"{name} is missing, or nothing that a recipe could hold",
                    Place(str(result.file), 1, 1),
                    field=name,
                )
            )
        return
    for _ in range(ROUNDS):
        correct(draft, recipe, config, backend, info)
        recipe = Recipe.model_validate(draft.document)
        result.differences = differences(recipe, config, backend, info)
        if not result.differences:
            break
    result.recipe = recipe
    result.text = yaml_out.dump(draft.ordered())
    _count(result, config, draft.document)


def with_folder(config: Mapping[str, Any], info: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entries with files by the path that LLaMA-Factory makes of them."""
    folder = str(config.get("dataset_dir", "data"))
    result: dict[str, Any] = {}
    for name, entry in (info or {}).items():
        file = entry.get("file_name") if isinstance(entry, Mapping) else None
        if isinstance(file, str) and not folder.startswith(("REMOTE:", "ONLINE")):
            result[name] = {**entry, "file_name": posixpath.normpath(f"{folder}/{file}")}
        else:
            result[name] = entry
    return result


def name_of(file: Path) -> str:
    """A recipe's name from a file's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")
    return name[:80] or "imported"


def rendered(recipe: Recipe) -> dict[str, Any]:
    """The training configuration that `ft recipe render` writes, as data."""
    return BACKENDS[recipe.backend].config(recipe, paths_of(recipe), Target("cuda", True, 1))


def paths_of(recipe: Recipe) -> Paths:
    """The places that a rendered file names."""
    return Paths(
        prepared=recipe.data.prepared or "", training=recipe.output.training_directory or ""
    )


def compare(
    recipe: Recipe, config: Mapping[str, Any], backend: str, info: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the source and the rendered recipe come to."""
    want, have = effective(config, backend), effective(rendered(recipe), backend)
    if info is not None:
        made = dataset_info(
            recipe,
            [source.path for source in recipe.data.sources],
            [source.path for source in recipe.data.validation_sources],
        )
        for key in LLAMAFACTORY_DATA:
            if key in want:
                want[key] = [complete(info[name]) for name in want[key]]
            if key in have:
                have[key] = [complete(made[name]) for name in have[key]]
        for side in (want, have):
            side.pop("dataset_dir", None)
    return want, have


def differences(
    recipe: Recipe, config: Mapping[str, Any], backend: str, info: Mapping[str, Any] | None
) -> list[Difference]:
    """Keys that would not be the same again."""
    want, have = compare(recipe, config, backend, info)
    return [
        Difference(key, want.get(key), have.get(key))
        for key in sorted({*want, *have})
        if not same(want.get(key), have.get(key))
    ]


def correct(
    draft: Draft,
    recipe: Recipe,
    config: Mapping[str, Any],
    backend: str,
    info: Mapping[str, Any] | None,
) -> None:
    """Put every key that rendering would change under `native`."""
    native: dict[str, Any] = {}
    want, have = compare(recipe, config, backend, info)
    for key in sorted({*want, *have}):
        one, other = want.get(key), have.get(key)
        if same(one, other):
            continue
        if key in (*ENTRIES, *LLAMAFACTORY_DATA) and _entries(draft, key, one, other, backend):
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            native[key] = _inner(one, other)
        else:
            native[key] = config.get(key) if key in config and one is not None else None
    if native:
        _put_on(draft.document.setdefault("native", {}).setdefault(backend, {}), native)


def _inner(want: Mapping[str, Any], have: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be put on `have` to get `want`; None removes a key."""
    result: dict[str, Any] = {}
    for key in {**want, **have}:
        one, other = want.get(key), have.get(key)
        if same(one, other):
            continue
        both = isinstance(one, Mapping) and isinstance(other, Mapping)
        result[key] = _inner(one, other) if both else one  # type: ignore[arg-type]
    return result


def _entries(draft: Draft, key: str, want: Any, have: Any, backend: str) -> bool:
    """Differences of single sources go into these; False if the lists do not match."""
    lists = isinstance(want, list) and isinstance(have, list) and len(want) == len(have)
    if not lists or not all(isinstance(entry, Mapping) for entry in (*want, *have)):
        return False
    group = "validation_sources" if key in ("test_datasets", "eval_dataset") else "sources"
    for source, one, other in zip(draft.document["data"][group], want, have, strict=True):
        if not same(one, other):
            _put_on(source.setdefault("native", {}).setdefault(backend, {}), _inner(one, other))
    return True


def _put_on(target: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Further corrections on earlier ones; None stays, it removes a key."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _put_on(target[key], value)
        else:
            target[key] = value


def _count(result: Imported, config: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    native = (document.get("native") or {}).get(result.kind.kind, {})
    sections = {
        **dict.fromkeys(("datasets", "pretraining_dataset", "dataset"), "sources"),
        **dict.fromkeys(("test_datasets", "eval_dataset"), "validation_sources"),
    }
    for key, value in config.items():
        result.top_keys += 1
        result.top_neutral += key not in native
        own: Any = native.get(key) if key in native else None
        if key in sections and key not in native:
            sources = document["data"].get(sections[key], [])
            own = [(s.get("native") or {}).get(result.kind.kind, {}) for s in sources]
        count = _leaves(value, own, key, result.native)
        result.keys += count[0]
        result.neutral += count[1]


def _leaves(value: Any, native: Any, path: str, names: list[str]) -> tuple[int, int]:
    """How many keys are below, and how many of them are not native."""
    if isinstance(value, Mapping) and value:
        total = neutral = 0
        for key, inner in value.items():
            below = native.get(key) if isinstance(native, Mapping) else native
            some = _leaves(inner, below, f"{path}.{key}", names)
            total, neutral = total + some[0], neutral + some[1]
        return total, neutral
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        matched = isinstance(native, list) and len(native) == len(value)
        parts = [
            _leaves(item, native[index] if matched else native, f"{path}[]", names)
            for index, item in enumerate(value)
        ]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)
    kept = native is None or native in ({}, []) or (isinstance(native, list) and not any(native))
    if not kept:
        names.append(path)
    return 1, int(kept)


def _head(file: Path, backend: str, comment: str, left_out: list[Finding]) -> str:
    release = load_keys(backend)["release"]
    label = BACKENDS[backend].label
    lines = [f"# Imported by ft from {file.name}, a configuration of {label} {release}."]
    for finding in left_out:
        line = f" (line {finding.place.line})" if finding.place else ""
        lines.append(f"# Left out, it does nothing there: {finding.field}{line}")
    if comment:
        lines += ["#", *comment.splitlines()]
    return "\n".join(lines) + "\n"
