"""Names into profiles: the shipped ones, the user's own, and any file.

Findings are those of recipes: `FT101` unknown key, `FT102` wrong type, `FT103` out of range,
`FT105` not a mapping, `FT108` a variable that is not set.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.clusters.profile import Cluster
from orchestrator.errors import UsageError
from orchestrator.findings import Finding, Place, RecipeError, errors_of
from orchestrator.recipe.explaining import explain
from orchestrator.recipe.sources import shipped
from orchestrator.recipe.variables import expand
from orchestrator.recipe.yaml_source import parse, read_text

VARIABLE_FIELDS = (
    ("account",),
    ("scratch",),
    ("module_init",),
    ("environment", "home"),
    ("environment", "axolotl", "prefix"),
    ("environment", "llamafactory", "prefix"),
)
"""Fields that take `${NAME}` from the environment of whoever submits."""


@dataclass(frozen=True, slots=True)
class LoadedCluster:
    """A valid profile with its name and file."""

    name: str
    cluster: Cluster
    file: Path


def own_folder() -> Path:
    """Where profiles of the user's own are kept for all projects."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "ft" / "clusters"


def cluster_names() -> dict[str, Path]:
    """Every profile that can be named; `./clusters` outranks the user's, which outrank ours."""
    found: dict[str, Path] = {}
    for folder in (shipped("clusters"), own_folder(), Path("clusters")):
        if folder.is_dir():
            found |= {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return found


def find_cluster(name: str) -> Path:
    """The profile's file: a path, or a name.

    Raises:
        UsageError: there is no such profile; the nearest name is given.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if path.is_file():
            return path
        raise UsageError(f"there is no cluster profile {name}", hint="`ft cluster list` shows them")
    known = cluster_names()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(
        f"there is no cluster {name!r}{guess}",
        hint=f"clusters: {', '.join(sorted(known))}; `ft cluster new NAME` writes one of your own",
    )


def profile_text(name: str) -> str:
    """The profile as it is written.

    Raises:
        UsageError: there is none.
        RecipeError: it cannot be read as text.
    """
    file = find_cluster(name)
    text, findings = read_text(file)
    if findings:
        raise RecipeError(findings, what=str(file))
    return text


def load_cluster(name: str, environ: Mapping[str, str] | None = None) -> LoadedCluster:
    """The profile of that name or file.

    Raises:
        UsageError: there is none.
        RecipeError: with every finding, if it cannot be used.
    """
    file, text = find_cluster(name), profile_text(name)
    document, findings = parse(text, str(file))
    if findings:
        raise RecipeError(findings, what=str(file))
    if not isinstance(document.value, dict):
        place = Place(str(file), 1, 1)
        finding = Finding("FT105", "error", "the profile is no mapping of settings", place,
                          fix="start from one: `ft cluster new NAME`")  # fmt: skip
        raise RecipeError([finding], what=str(file))
    findings = expand(document, os.environ if environ is None else environ, VARIABLE_FIELDS)
    try:
        cluster = Cluster.model_validate(document.value)
    except ValidationError as error:
        unset = {finding.field for finding in findings}
        findings += [f for f in explain(error, document, Cluster) if f.field not in unset]
        raise RecipeError(findings, what=str(file)) from error
    if errors_of(findings):
        raise RecipeError(findings, what=str(file))
    return LoadedCluster(file.stem, cluster, file)


def description(file: Path) -> str:
    """A profile's own line about itself; variables that are not set here do not matter."""
    text, findings = read_text(file)
    document = parse(text, str(file))[0] if not findings else None
    value = document.value.get("description", "") if document and isinstance(
        document.value, dict
    ) else ""  # fmt: skip
    return str(value)
