"""Have a recipe's model and data on this machine before anything needs them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendEnvironmentError
from orchestrator.hub import cache, choosing, local
from orchestrator.hub.cache import Repository, Snapshot
from orchestrator.hub.fetch import fetch, from_cache
from orchestrator.plan import Context
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sources import HUB_ID, is_snapshot, looks_local


@dataclass(frozen=True, slots=True)
class Places:
    """Where a recipe's model and data lie: an absolute path, or empty for what is on the hub."""

    base: str
    sources: tuple[str, ...]
    validation_sources: tuple[str, ...]


def places(context: Context) -> Places:
    """Those of a plan. What lies in the hub's cache is not local: it may be there in part only."""

    def own(path: str) -> str:
        return path if Path(path).is_absolute() and not is_snapshot(path) else ""

    return Places(
        own(context.base) if context.base else "",
        tuple(map(own, context.sources)),
        tuple(map(own, context.validation_sources)),
    )


def base_of(recipe: Recipe) -> Repository:
    """The base model on the hub; without its weights, where they are not used."""
    files = () if _starts_from_weights(recipe) else choosing.BESIDE_WEIGHTS
    return Repository("model", recipe.model.base, recipe.model.revision, files)


def _starts_from_weights(recipe: Recipe) -> bool:
    return not recipe.model.from_scratch or recipe.adapter.type != "none"


def data_of(source: Source) -> Repository:
    """A source on the hub."""
    files = (source.files,) if isinstance(source.files, str) else source.files or ()
    return Repository("dataset", source.path, source.revision, tuple(files))


def needed(recipe: Recipe, known: Places) -> Iterator[Repository]:
    """Every repository of the hub that a run needs, each once."""
    found = [] if known.base else [base_of(recipe)]
    tokenizer = recipe.model.tokenizer
    if tokenizer and not looks_local(tokenizer) and not Path(tokenizer).exists():
        found.append(Repository("model", tokenizer, files=choosing.BESIDE_WEIGHTS))
    for source, path in (
        *zip(recipe.data.sources, known.sources, strict=True),
        *zip(recipe.data.validation_sources, known.validation_sources, strict=True),
    ):
        if not path and source.format != "registered" and HUB_ID.fullmatch(source.path):
            found.append(data_of(source))
    yield from dict.fromkeys(found)


def fetch_needed(
    recipe: Recipe, known: Places, *, offline: bool, say: Callable[[str], None]
) -> list[Snapshot]:
    """Have every needed repository in the hub's cache, and look at a base that is local.

    Raises:
        BackendEnvironmentError: something cannot be had; says what, and what to do about it.
    """
    wrong = known.base and local.flaw(Path(known.base), weights=_starts_from_weights(recipe))
    if wrong:
        raise BackendEnvironmentError(
            f"the model in {known.base} is not whole: {wrong}",
            hint="copy or clone it again, or name it by its hub id",
        )
    found = []
    for repository in needed(recipe, known):
        say(f"fetch {repository.name}")
        found.append(from_cache(repository) if offline else fetch(repository))
    return found


def fetch_all(recipe: Recipe, context: Context, say: Callable[[str], None]) -> dict[str, Any]:
    """The stage `fetch`: download what is named by hub id; local things only have to be there.

    Raises:
        BackendEnvironmentError: something cannot be had.
    """
    found = fetch_needed(recipe, places(context), offline=context.offline, say=say)
    return {"fetched": [snapshot.as_dict() for snapshot in found], "summary": summary(found)}


def summary(found: list[Snapshot]) -> str:
    """What was fetched, in one line."""
    if not found:
        return "model and data are local"
    names = ", ".join(snapshot.repository.name for snapshot in found)
    size = sum(snapshot.bytes for snapshot in found)
    return f"{names}: {size / 1e9:.2f} GB, checked by size and hash" if size else names


def cached(repository: Repository) -> str:
    """The repository's folder in the cache; empty if it is not there, or not whole."""
    found = cache.find(repository)
    return str(found.folder) if found else ""
