"""`extends: other.yaml`: a recipe that says only what it does otherwise.

One level, mappings merged, lists replaced, and nothing else: whoever reads the two files knows the
result. Every value keeps the place in the file that holds it, so that findings point there.
"""

from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.findings import Finding
from orchestrator.recipe.sources import find_recipe
from orchestrator.recipe.yaml_source import Document, Path_, parse, read_text

KEY = "extends"


def with_base(document: Document, file: Path) -> list[Finding]:
    """Merge the recipe that `document` extends below it; `extends` itself is taken out.

    Findings: `FT107`, and all that makes the base unreadable.
    """
    place = document.place((KEY,))
    name = document.value.pop(KEY)
    if not isinstance(name, str) or not name:
        return [Finding("FT107", "error", "extends names one recipe", place, field=KEY)]
    try:
        path = _find(name, file.resolve().parent)
    except (OSError, ValueError):  # too long for a path
        return [Finding("FT107", "error", "extends names no file", place, field=KEY)]
    except UsageError as error:
        return [Finding("FT107", "error", error.message, place, field=KEY, fix=error.hint)]
    if path.resolve() == file.resolve():
        return [Finding("FT107", "error", "a recipe cannot extend itself", place, field=KEY)]
    text, findings = read_text(path)
    base, problems = parse(text, str(path)) if not findings else (document, [])
    findings += problems
    if findings:
        return findings
    if not isinstance(base.value, dict):
        return [Finding("FT107", "error", f"{path} is no recipe", place, field=KEY)]
    if KEY in base.value:
        return [
            Finding(
                "FT107",
                "error",
                f"{path.name} extends another recipe itself; one level is all there is",
                base.place((KEY,), key=True),
                field=KEY,
                fix="extend that one, or write its values here",
            )
        ]
    _keep_paths(base.value, path.resolve().parent, file.resolve().parent)
    own = document.value
    document.value = _merged(base, document, base.value, own, ())
    return []


def _find(name: str, beside: Path) -> Path:
    """The base's file: from the recipe's folder, or a recipe's name.

    Raises:
        UsageError: there is none.
    """
    for candidate in (beside / name, beside / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    return find_recipe(name)


def _merged(base: Document, own: Document, below: Any, above: Any, path: Path_) -> Any:
    """`above` on top of `below`; the places of what stays from the base go into `own`."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    result: dict[str, Any] = {}
    for key in below:
        inner = (*path, key)
        if key in above:
            result[key] = _merged(base, own, below[key], above[key], inner)
            continue
        result[key] = below[key]
        for source, target in ((base.keys, own.keys), (base.values, own.values)):
            target.update({p: at for p, at in source.items() if p[: len(inner)] == inner})
    return result | {key: value for key, value in above.items() if key not in result}


def _keep_paths(base: dict[str, Any], folder: Path, other: Path) -> None:
    """Paths in the base count from its own folder: write out those that would move."""
    if folder == other:
        return
    data, model = base.get("data"), base.get("model")
    spread = base.get("distributed")
    sections = [
        (model, "base"),
        (model, "tokenizer"),
        (data, "chat_template"),
        (spread, "deepspeed_file"),
    ]
    if isinstance(data, dict):
        for group in ("sources", "validation_sources"):
            entries = data.get(group)
            sections += [(s, "path") for s in entries] if isinstance(entries, list) else []
    for section, key in sections:
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(value, str) and value:
            section[key] = _moved(value, folder)


def _moved(text: str, folder: Path) -> str:
    try:
        return str(folder / text) if (folder / text).exists() else text
    except (OSError, ValueError):  # too long, or a null byte: not a path
        return text
