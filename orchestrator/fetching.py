"""Have a recipe's model and data on this machine before anything needs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendEnvironmentError
from orchestrator.plan import Context
from orchestrator.recipe.models import Recipe

MODEL_FILES = [
    "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*", "*.py", "LICENSE*",
]  # fmt: skip
"""Files of a model repository that training needs: no duplicates in other weight formats."""


def fetch_all(recipe: Recipe, context: Context, say: Callable[[str], None]) -> dict[str, Any]:
    """Download what is named by hub id into the hub's cache; local things only have to be there.

    Raises:
        BackendEnvironmentError: something cannot be had; says what, and what to do about it.
    """
    fetched = []
    if not context.base:
        say(f"fetch {recipe.model.base}")
        path = _snapshot(recipe.model.base, recipe.model.revision, context.offline, "model")
        fetched.append({"id": recipe.model.base, "path": path})
    sources = zip(
        (*recipe.data.sources, *recipe.data.validation_sources),
        (*context.sources, *context.validation_sources),
        strict=True,
    )
    for source, path in sources:
        if not Path(path).is_absolute() and source.format != "registered":
            say(f"fetch {source.path}")
            where = _snapshot(source.path, source.revision, context.offline, "dataset")
            fetched.append({"id": source.path, "path": where})
    names = ", ".join(entry["id"] for entry in fetched)
    return {"fetched": fetched, "summary": names or "model and data are local"}


def _snapshot(name: str, revision: str | None, offline: bool, kind: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return str(
            snapshot_download(
                name,
                revision=revision,
                repo_type=kind,
                local_files_only=offline,
                allow_patterns=MODEL_FILES if kind == "model" else None,
            )
        )
    except GatedRepoError as error:
        raise BackendEnvironmentError(
            f"the {kind} {name} is gated",
            hint="accept its terms on its page, then `hf auth login` or set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise BackendEnvironmentError(f"{name} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise BackendEnvironmentError(
            f"the hub has no {kind} {name}, or it is private",
            hint="check the spelling; for a private one set HF_TOKEN; for a local folder give "
            "its path",
        ) from error
    except LocalEntryNotFoundError as error:
        why = "is not in the cache" if offline else "cannot be fetched: the hub cannot be reached"
        raise BackendEnvironmentError(
            f"the {kind} {name} {why}",
            hint="fetch it where there is a network, name a local folder, or try --smoke, which "
            "needs neither model nor network",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BackendEnvironmentError(
            f"the {kind} {name} cannot be fetched: {str(error).splitlines()[0]}"
        ) from error
