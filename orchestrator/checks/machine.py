"""What has to be looked up on this machine: the base model, the template, keys, room on the disk.

Findings: `FT205` a base that is quantized already, `FT208` a template file, `FT220` no base model,
`FT221` a sequence longer than the model's, `FT222` a template that the model does not have,
`FT225` a pad token that hides the end of a text, `FT231` a tracker without a key, `FT232`
checkpoints that fill the disk, `FT234` a DeepSpeed file.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.checks.deepspeed_file import deepspeed_file
from orchestrator.checks.method import prequantized
from orchestrator.files import read_json
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import HUB_ID, local_path, looks_local
from orchestrator.templates import TEMPLATES, TOKENIZER

CONVERSATIONS = {"messages", "sharegpt", "preference"}


def look(recipe: Recipe, beside: Path) -> Iterator[Finding]:
    """Every finding about what the recipe names on this machine."""
    yield from base_model(recipe, beside)
    yield from template_file(recipe, beside)
    yield from tracker_key(recipe)
    yield from deepspeed_file(recipe, beside)


def base_model(recipe: Recipe, beside: Path) -> Iterator[Finding]:
    """What a local base model's own files say."""
    path = local_path(recipe.model.base, beside)
    if path is None:
        yield from _missing_base(recipe.model.base, beside)
        return
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        yield Finding("FT220", "error", f"{path} has no config.json", field="model.base")
        return
    if isinstance(config.get("quantization_config"), dict):
        method = config["quantization_config"].get("quant_method", "quantized")
        yield from prequantized(recipe, f"its config.json says {method}")
    yield from _sequence_length(recipe, config)
    yield from _own_template(recipe, path)
    yield from disk_space(recipe, path, beside)


def _missing_base(base: str, beside: Path) -> Iterator[Finding]:
    if not looks_local(base):
        folder = base.partition("/")[0]
        if "/" in base and local_path(folder, beside):
            yield Finding(
                "FT220",
                "warning",
                f"{base} is taken for a hub id, though there is a folder {folder} here",
                field="model.base",
                fix=f"./{base} if a folder is meant; it is not there",
            )
        return
    fix = "give a folder with config.json, or a hub id like user/name"
    parts = base.rstrip("/").split("/")
    guess = "/".join(parts[-2:]).replace(" ", "-").replace("\\", "/")
    if ("://" in base or " " in base or "\\" in base) and HUB_ID.fullmatch(guess):
        fix = f"--set model.base={guess} if that is the hub id"
    yield Finding("FT220", "error", f"there is no model at {base}", field="model.base", fix=fix)


def _sequence_length(recipe: Recipe, config: dict[str, Any]) -> Iterator[Finding]:
    text = config.get("text_config")
    longest = config.get("max_position_embeddings")
    if longest is None and isinstance(text, dict):
        longest = text.get("max_position_embeddings")
    if isinstance(longest, int) and recipe.data.sequence_length > longest:
        yield Finding(
            "FT221",
            "error",
            f"the model takes {longest} positions, fewer than sequence_length",
            field="data.sequence_length",
            fix=f"--set data.sequence_length={longest}",
        )


def _own_template(recipe: Recipe, path: Path) -> Iterator[Finding]:
    """`tokenizer` as a template needs a tokenizer that has one."""
    config = read_json(path / "tokenizer_config.json")
    if recipe.model.tokenizer:
        return
    there = isinstance(config, dict) and bool(config.get("chat_template"))
    there = there or any(
        (path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")
    )
    formats = {s.format for s in recipe.data.sources if not s.chat_template}
    if isinstance(config, dict):
        yield from _pad_token(recipe, config)
    if formats & CONVERSATIONS:
        yield from _stop_tokens(recipe, path)
    if recipe.data.chat_template == TOKENIZER and formats & CONVERSATIONS and not there:
        yield Finding(
            "FT222",
            "error",
            f"the tokenizer in {path} has no chat template",
            field="data.chat_template",
            fix="name one: --set data.chat_template=chatml",
        )


def _stop_tokens(recipe: Recipe, path: Path) -> Iterator[Finding]:
    """The token that ends a turn is one token of the tokenizer."""
    known = TEMPLATES.get(recipe.data.chat_template)
    stops = recipe.data.stop_tokens or ((known.stop,) if known and known.stop else ())
    try:
        tokenizer = (path / "tokenizer.json").read_text("utf-8") if stops else ""
    except (OSError, UnicodeDecodeError):
        return
    for stop in stops:
        if json.dumps(stop, ensure_ascii=False) not in tokenizer:
            yield Finding(
                "FT222",
                "error",
                f"the tokenizer in {path} has no token {stop}, which ends the turns of "
                f"{recipe.data.chat_template!r}",
                field="data.chat_template",
                fix="choose the model's own template: --set data.chat_template=tokenizer",
            )


def _pad_token(recipe: Recipe, config: dict[str, Any]) -> Iterator[Finding]:
    """LLaMA-Factory 0.9.5 masks the pad token in `pretrain`, and takes eos where there is none."""

    def token(name: str) -> Any:
        value = config.get(name)
        return value.get("content") if isinstance(value, dict) else value

    if recipe.backend != "llamafactory" or recipe.training.stage != "pretrain":
        return
    if token("pad_token") in (None, token("eos_token")):
        yield Finding(
            "FT225",
            "warning",
            "the tokenizer pads with its end of text, which is then never learned",
            field="model.base",
            fix="give the tokenizer a pad token of its own, or --backend axolotl",
        )


def template_file(recipe: Recipe, beside: Path) -> Iterator[Finding]:
    """A template file is there and parses."""
    name = recipe.data.chat_template
    if not name.endswith(".jinja"):
        return
    path = local_path(name, beside)
    if path is None:
        yield Finding(
            "FT208", "error", f"there is no template file {name}", field="data.chat_template"
        )
        return
    import jinja2

    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(path.read_text("utf-8"))
    except (jinja2.TemplateSyntaxError, UnicodeDecodeError, OSError) as error:
        line = getattr(error, "lineno", 0)
        yield Finding("FT208", "error", f"{path}:{line}: {error}", field="data.chat_template")


def tracker_key(recipe: Recipe) -> Iterator[Finding]:
    """wandb asks for a key, which ends a batch job."""
    if recipe.tracking.type != "wandb" or recipe.tracking.mode in ("offline", "disabled"):
        return
    if wandb_key() or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    yield Finding(
        "FT231",
        "warning",
        "wandb has no key here: a run without a terminal would end at its login",
        field="tracking.type",
        fix="export WANDB_API_KEY, or WANDB_MODE=offline",
    )


def wandb_key() -> bool:
    """Whether wandb finds a key: in the environment, or where `wandb login` has put it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return "wandb" in netrc.read_text("utf-8", errors="replace")
    except OSError:
        return False


def disk_space(recipe: Recipe, base: Path, beside: Path) -> Iterator[Finding]:
    """Checkpoints, the merged model and the export beside what is free, from the base's size.

    A full checkpoint is the weights and, for an Adam, twice four bytes per weight of states; of a
    LoRA it is too small to count.
    """
    try:
        weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        folder = Path(recipe.output.directory).expanduser().absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    lora = recipe.adapter.type == "lora"
    kept = 0 if recipe.training.save == "never" else (recipe.training.keep_checkpoints or 2) + 1
    needed = 0 if lora else weights * (1 + 5 * kept)
    needed += weights if lora and recipe.output.merge else 0
    needed += weights if recipe.output.export else 0
    if needed > free:
        yield Finding(
            "FT232",
            "warning",
            f"checkpoints and models may take {needed / 1e9:.0f} GB, {folder} has "
            f"{free / 1e9:.0f} GB free",
            field="training.keep_checkpoints" if not lora else "output.directory",
            fix="--set output.directory=... on a larger disk"
            + ("" if lora else ", or training.keep_checkpoints=1"),
        )
