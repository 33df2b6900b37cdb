"""Names into things: a recipe by name, a data path or a base model by file or hub id."""

import difflib
import re
from functools import cache
from pathlib import Path, PurePath

from orchestrator.errors import UsageError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
DATA_SUFFIXES = {".jsonl", ".json", ".parquet", ".csv", ".tsv", ".arrow", ".txt"}


@cache
def shipped(folder: str) -> Path:
    """A folder that travels with the package: beside it in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_shipped" / folder
    return inside if inside.is_dir() else package.parent / folder


def recipe_names() -> dict[str, Path]:
    """Every recipe that can be named: the shipped ones, then the user's own `./recipes`."""
    found: dict[str, Path] = {}
    for folder in (shipped("recipes"), Path("recipes")):
        if folder.is_dir():
            found |= {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return found


def find_recipe(name: str) -> Path:
    """The recipe's file: a path, or a name in `./recipes` or among the shipped ones.

    Raises:
        UsageError: there is no such recipe; the nearest names are given.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or "/" in name or path.is_file():
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f"{name} is a folder, not a recipe", hint="name the file in it")
        raise UsageError(f"there is no recipe file {name}", hint="`ft recipe list` shows recipes")
    known = recipe_names()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(
        f"there is no recipe {name!r}{guess}",
        hint=f"recipes: {', '.join(sorted(known))}; or give the path of a file",
    )


def local_path(text: str, beside: Path) -> Path | None:
    """`text` as an existing file or folder: from the recipe's folder, then from here.

    None: it is not there. The result is absolute.
    """
    try:
        path = Path(text).expanduser()
        for candidate in (beside / path, path):
            if candidate.exists():
                return candidate.resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, a home of nobody
        pass
    return None


def is_snapshot(path: str | PurePath) -> bool:
    """Whether a folder is a repository in the hub's cache: `.../snapshots/<commit>`."""
    return PurePath(path).is_absolute() and PurePath(path).parent.name == "snapshots"


def looks_local(text: str) -> bool:
    """Whether a name can only mean a file: by its start, its suffix or its shape."""
    return (
        text.startswith(("/", "./", "../", "~"))
        or Path(text).suffix.lower() in DATA_SUFFIXES
        or not HUB_ID.fullmatch(text)
    )
