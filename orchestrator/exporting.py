"""The export: a clean Hugging Face folder that says what it is and when to stop."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator import __version__, artifacts, yaml_out
from orchestrator.backends.registry import BACKENDS
from orchestrator.errors import ArtifactError, BackendEnvironmentError, LaunchError
from orchestrator.files import read_json, write_atomic, write_json
from orchestrator.plan import Plan
from orchestrator.recipe.sources import is_snapshot
from orchestrator.runs.record import Record

MODEL_PARTS = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
ADAPTER_PARTS = (
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def make_export(
    plan: Plan, record: Record, labels: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Make `export/` from the merged model, the full model or the adapter, and push it if asked.

    Weights are hard-linked where the file system can, so that they do not take their room twice.

    Raises:
        ArtifactError: what was made would not load.
    """
    source, target = plan.final_model, plan.layout.export
    partial = target.with_name(".export.partial")
    shutil.rmtree(partial, ignore_errors=True)
    adapter = source == plan.layout.adapter
    try:
        partial.mkdir(parents=True)
        for name in _parts(source, adapter):
            _link(source / name, partial / name)
        stops = [] if adapter else _cover_stop_tokens(partial, labels)
        card = model_card(plan, record, labels)
        write_atomic(partial / "README.md", card)
        if adapter:
            name_base(partial, plan.recipe.model.base, plan.context.base)
            facts = artifacts.check_adapter(partial, plan.recipe.adapter.rank)
            artifacts.check_tokenizer(partial)
        else:
            facts = artifacts.check_model(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    except OSError as error:
        raise LaunchError(f"cannot write {partial}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    summary = str(target)
    pushed = None
    if plan.recipe.output.push_to_hub:
        say(f"push to {plan.recipe.output.push_to_hub}")
        pushed = push(target, plan.recipe.output.push_to_hub, plan.recipe.output.private)
        summary += f", pushed to {pushed}"
    return {
        "path": str(target),
        "kind": "adapter" if adapter else "model",
        "artifact": facts,
        "eos_token_id": stops,
        "pushed": pushed,
        "summary": summary,
    }


def _parts(source: Path, adapter: bool) -> list[str]:
    names = ADAPTER_PARTS if adapter else MODEL_PARTS
    found = [name for name in names if (source / name).is_file()]
    if not adapter:
        index = read_json(source / "model.safetensors.index.json")
        if isinstance(index, dict):
            found += sorted(set(index["weight_map"].values()))
        found += [path.name for path in sorted(source.glob("*.py"))]
    return list(dict.fromkeys(found))


def _link(source: Path, target: Path) -> None:
    if source.suffix != ".safetensors":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def name_base(adapter: Path, base: str, trained_on: str) -> None:
    """Let an adapter name its base by hub id, where the run had it by its place in the cache."""
    path = adapter / "adapter_config.json"
    config = read_json(path)
    if is_snapshot(trained_on) and isinstance(config, dict):
        write_json(path, {**config, "base_model_name_or_path": base})


def _cover_stop_tokens(folder: Path, labels: Mapping[str, Any]) -> list[int]:
    """Let generation stop at every stop token that was trained; else the model never stops."""
    path = folder / "generation_config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        model = read_json(folder / "config.json") or {}
        config = {
            key: model[key]
            for key in ("bos_token_id", "eos_token_id", "pad_token_id")
            if model.get(key) is not None
        }
    eos = config.get("eos_token_id")
    known = list(eos) if isinstance(eos, list) else [] if eos is None else [eos]
    vocabulary = (read_json(folder / "config.json") or {}).get("vocab_size")
    trained = [int(token) for token in labels.get("stop_ids", ())]
    outside = [token for token in trained if isinstance(vocabulary, int) and token >= vocabulary]
    if outside:
        raise ArtifactError(
            f"the trained stop token {outside[0]} is outside the model's vocabulary ({vocabulary})",
            hint="the embedding was not resized for a new token",
        )
    every = list(dict.fromkeys([*known, *trained]))
    if every:
        config["eos_token_id"] = every if len(every) > 1 else every[0]
    write_json(path, config)
    return every


def model_card(plan: Plan, record: Record, labels: Mapping[str, Any]) -> str:
    """A model card: what it was made of and how, with the recipe that makes it again."""
    recipe = plan.recipe
    smoke = bool(plan.context.smoke)
    base = recipe.model.base if not Path(recipe.model.base).is_absolute() else ""
    header: dict[str, Any] = {"library_name": "transformers", "tags": ["ft", recipe.backend]}
    if recipe.adapter.type == "lora" and not recipe.output.merge:
        header["library_name"] = "peft"
    if base and not smoke:
        header["base_model"] = base
    datasets = [s.path for s in recipe.data.sources if "/" in s.path and not Path(s.path).suffix]
    if datasets and not smoke:
        header["datasets"] = [name for name in datasets if not name.startswith(("/", ".", "~"))]
    facts = (read_json(plan.layout.marker("train")) or {}).get("facts", {})
    loss = facts.get("loss") or {}
    lines = [
        "---",
        yaml_out.dump(header).rstrip(),
        "---",
        "",
        f"# {recipe.name}",
        "",
        recipe.description or "A fine-tuned model.",
        "",
    ]
    if smoke:
        lines += [
            "> This is a smoke test: random weights with two layers, trained for "
            f"{recipe.training.steps} steps. It is of no use beyond the test.",
            "",
        ]
    method = "full fine-tune" if recipe.adapter.type == "none" else "LoRA"
    if recipe.model.quantization == "nf4":
        method = "QLoRA (nf4)"
    rows = [
        ("base model", recipe.model.base),
        ("method", f"{recipe.training.stage}, {method}"),
        ("backend", f"{BACKENDS[recipe.backend].label} "
                    f"{record.document.get('environment', {}).get('release', '')}"),
        ("steps", facts.get("global_step", "")),
        ("loss", _arrow(loss.get("first"), loss.get("last"))),
        ("trained tokens", f"{labels.get('trained_tokens', 0):,} of {labels.get('tokens', 0):,}"),
        ("stop tokens", ", ".join(f"`{token}`" for token in labels.get("stop_tokens", ()))),
        ("made with", f"ft {__version__}, run {record.layout.id}"),
    ]  # fmt: skip
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows if value)]
    lines += [
        "",
        "## Recipe",
        "",
        "```yaml",
        yaml_out.dump(recipe.model_dump(mode="json", exclude_defaults=True)).rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _arrow(first: Any, last: Any) -> str:
    if not isinstance(first, (int, float)) or not isinstance(last, (int, float)):
        return ""
    return f"{first:.3f} -> {last:.3f}"


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder; the token comes from the environment or the hub's own login.

    Raises:
        BackendEnvironmentError: there is no token, or the hub refuses.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not get_token():
        raise BackendEnvironmentError(
            "there is no hub token", hint="`hf auth login`, or set HF_TOKEN; then --resume the run"
        )
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"Upload by ft {__version__}"
        )
    except (HfHubHTTPError, OSError) as error:
        raise BackendEnvironmentError(
            f"the push to {repository} failed: {str(error).splitlines()[0]}",
            hint="check the token's rights; then --resume the run",
        ) from error
    return str(commit.commit_url or repository)
