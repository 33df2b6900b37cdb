"""Where a recipe's model and data are, and the name of what is prepared from them."""

from pathlib import Path
from typing import Any

from orchestrator import fetching, fingerprint, smoke
from orchestrator.backends.base import Target
from orchestrator.environments.home import home
from orchestrator.environments.locks import RELEASES
from orchestrator.files import read_json
from orchestrator.hub.cache import Repository
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sources import is_snapshot, local_path


def model_type(recipe: Recipe, beside: Path) -> str:
    """The architecture that a local base model names; empty where that is not known."""
    path = local_path(recipe.model.base, beside)
    config = read_json(path / "config.json") if path else None
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def of_twin(recipe: Recipe, family: str) -> dict[str, Any]:
    """What a smoke run works on: the tiny twin of the model, and small data like the recipe's."""
    seed = recipe.training.seed
    key = smoke.twin_key(family, RELEASES[recipe.backend], seed)
    directory = home() / "twins" / key
    digest = fingerprint.text_digest(smoke.data_for(recipe.data.sources[0]))
    # one place for the same content: axolotl's own hash of prepared data has the path in it
    data = str(home() / "smoke-data" / f"{digest[:16]}.jsonl")
    name = fingerprint.prepared_name(
        recipe,
        release=RELEASES[recipe.backend],
        tokenizer=key,
        contents=[digest],
        template="",
    )
    folder = Path(__file__).resolve().parent / "smoke_data"
    corpus = [str(folder / f"{name}.jsonl") for name in sorted(set(smoke.FILES.values()))]
    return {
        "prepared": str(home() / "prepared" / name),
        "target": Target("cpu", bf16=False, processes=1),
        "base": str(directory),
        "sources": (data,),
        "validation_sources": (data,) if recipe.data.validation_sources else (),
        "offline": True,
        "smoke": {
            "family": family,
            "directory": str(directory),
            "corpus": corpus,
            "seed": seed,
        },
    }


def found(recipe: Recipe, beside: Path, offline: bool) -> dict[str, Any]:
    """Where model and data are, offline also in the hub's cache, and what is made of them."""
    base = local_path(recipe.model.base, beside) or (
        _cached(fetching.base_of(recipe)) if offline else None
    )
    sources = [(s.path, _data_path(s, beside, offline)) for s in recipe.data.sources]
    others = [(s.path, _data_path(s, beside, offline)) for s in recipe.data.validation_sources]
    template = (
        local_path(recipe.data.chat_template, beside)
        if recipe.data.chat_template.endswith(".jinja")
        else None
    )
    # with the path: axolotl's own hash of prepared data has it in it, the content is in ours
    contents = [
        name if path is None else str(path) if is_snapshot(path)
        else f"{path}:{fingerprint.file_digest(path)}"
        for name, path in (*sources, *others)
    ]  # fmt: skip
    name = fingerprint.prepared_name(
        recipe,
        release=RELEASES[recipe.backend],
        tokenizer=f"{base}:{fingerprint.tokenizer_digest(base)}" if base else recipe.model.base,
        contents=contents,
        template=fingerprint.file_digest(template) if template else "",
    )
    all_local = base is not None and all(path for _, path in (*sources, *others))
    return {
        "prepared": str(home() / "prepared" / name),
        "base": str(base) if base else "",
        "sources": tuple(str(path or name) for name, path in sources),
        "validation_sources": tuple(str(path or name) for name, path in others),
        "template": str(template) if template else "",
        "offline": offline or all_local,
    }


def _data_path(source: Source, beside: Path, offline: bool) -> Path | None:
    """Where a source is: a file or folder, offline also in the hub's cache."""
    found = local_path(source.path, beside)
    if found or not offline or source.format == "registered":
        return found
    return _cached(fetching.data_of(source))


def _cached(repository: Repository) -> Path | None:
    folder = fetching.cached(repository)
    return Path(folder) if folder else None
