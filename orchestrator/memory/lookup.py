"""Find a model's config.json: given, in its folder, in the hub's cache, known here, or on the hub.

Only `from_hub` uses the network; the cache is read by its layout, since importing huggingface_hub
takes longer than all the rest.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendEnvironmentError, UsageError
from orchestrator.files import read_json
from orchestrator.memory import known
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import local_path


@dataclass(frozen=True, slots=True)
class Found:
    """A config and where it is from, in words."""

    config: dict[str, Any]
    origin: str


def find(recipe: Recipe, beside: Path, file: Path | None, *, network: bool) -> Found:
    """The config of a recipe's base model.

    Raises:
        UsageError: the file that was given is no config.
        BackendEnvironmentError: it cannot be had.
    """
    found = from_file(file, recipe) if file else offline(recipe, beside)
    if found is None and network:
        found = from_hub(recipe)
    if found is None:
        raise BackendEnvironmentError(
            f"the config of {recipe.model.base} is neither in the cache nor known here",
            hint="--config FILE takes a config.json; without --offline it is asked of the hub",
        )
    return found


def offline(recipe: Recipe, beside: Path) -> Found | None:
    """The config, if it can be had without a network."""
    base = recipe.model.config_from or recipe.model.base
    path = local_path(base, beside)
    if path is not None:
        config = read_json(path / "config.json")
        return _found(config, f"{path}/config.json", recipe)
    cached = cached_config(base, recipe.model.revision)
    if cached is not None:
        return _found(read_json(cached), "the hub's cache", recipe)
    return _found(known.config_of(base), "ft's table of models", recipe)


def from_file(file: Path, recipe: Recipe) -> Found:
    """The config in a file, or in a folder's config.json."""
    path = file / "config.json" if file.is_dir() else file
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no config.json: {error}") from error
    found = _found(config, str(path), recipe)
    if found is None:
        raise UsageError(f"{path} is no config.json: it holds no mapping")
    return found


def cached_config(model: str, revision: str | None) -> Path | None:
    """The config.json of a hub id in the hub's cache.

    The layout is the documented one: `models--ORG--NAME/{refs,snapshots}`.
    """
    home = os.environ.get("HF_HOME") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    folder = cache / f"models--{model.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):  # not a name: a commit itself, or not there
        commit = (folder / "refs" / commit).read_text("utf-8").strip()
    path = folder / "snapshots" / commit / "config.json"
    return path if path.is_file() else None


def from_hub(recipe: Recipe) -> Found | None:
    """The config on the hub: one small file, asked for once and not put into the cache.

    A cache that holds only a config would be taken for a fetched model by an offline run, and
    `hf_hub_download` tries for half a minute where there is no network.

    Raises:
        BackendEnvironmentError: it is not there, or not for us, or the hub cannot be reached.
    """
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its __init__ has no __all__
        build_hf_headers,
        hf_raise_for_status,
    )

    base = recipe.model.config_from or recipe.model.base
    hint = "--config FILE takes a config.json"
    try:
        url = hf_hub_url(base, "config.json", revision=recipe.model.revision)
        answer = get_session().get(url, headers=build_hf_headers(), timeout=10)
        hf_raise_for_status(answer)
        return _found(answer.json(), "the hub", recipe)
    except GatedRepoError as error:
        raise BackendEnvironmentError(
            f"the model {base} is gated",
            hint=f"accept its terms on its page, then set HF_TOKEN; or {hint}",
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise BackendEnvironmentError(
            f"the hub has no config of {base}, or it is private",
            hint=f"check the spelling; for a local folder give its path; or {hint}",
        ) from error
    except (HfHubHTTPError, ValueError) as error:
        raise BackendEnvironmentError(
            f"the config of {base} cannot be had: {str(error).splitlines()[0]}", hint=hint
        ) from error
    except Exception as error:  # httpx or requests, as the release of huggingface_hub has it
        raise BackendEnvironmentError(
            f"the config of {base} is neither in the cache nor known here, and the hub cannot be "
            f"reached ({error})",
            hint=hint,
        ) from error


def _found(config: Any, origin: str, recipe: Recipe) -> Found | None:
    if not isinstance(config, dict):
        return None
    return Found({**config, **(recipe.model.config_overrides or {})}, origin)
