"""What the probe is told so that LLaMA-Factory's tokens and labels are those of axolotl.

See `probe/ftprobe/llamafactory_common.py`, which does it inside the backend's process.
"""

from collections.abc import Iterator
from typing import Any

from orchestrator.findings import Finding
from orchestrator.prompts import alpaca_prompt
from orchestrator.recipe.models import ColumnRole, Recipe, column
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

MEDIA: tuple[ColumnRole, ...] = ("images", "videos", "audios")
STAGES = ("sft", "dpo", "orpo", "kto", "reward")


def options(recipe: Recipe) -> dict[str, Any] | None:
    """The `common` part of a request to preprocess; None: LLaMA-Factory does it its own way."""
    data = recipe.data
    sources = [source for _, source in data.all_sources()]
    if data.tokenization != "common" or recipe.training.stage not in STAGES:
        return None
    if recipe.model.split_special_tokens or any(
        source.format == "registered" for source in sources
    ):
        return None
    if any(source.columns.get(name) for source in sources for name in MEDIA):
        return None
    # the first tokens, as axolotl; llamafactory shortens every turn, and packs one token less
    room = data.sequence_length - (1 if data.packing else 0)
    most = room if data.overlong == "truncate" else None
    if data.chat_template == ALPACA:
        plain = all(s.format == "alpaca" and not column(s, "history") for s in sources)
        systems = {bool(column(source, "system")) for source in sources}
        if not plain or len(systems) > 1 or recipe.training.stage != "sft":
            return None
        prompt = alpaca_prompt(recipe, has_system=True in systems).as_dict()
        return {"prompt": prompt, "cut": most}
    known = TEMPLATES.get(data.chat_template)
    return {
        "own": data.chat_template == TOKENIZER,
        "trim": list(known.trims) if known else [],
        "default_system": data.default_system,
        "last_only": data.train_on == "last_assistant",
        "cut": most,
    }


def alone(recipe: Recipe) -> Iterator[Finding]:
    """What files that are used without ft do otherwise."""
    if options(recipe) is None:
        return
    if recipe.data.chat_template == ALPACA:
        what = (
            "joins instruction and input by a newline, writes no BOS and trains the empty lines "
            "behind the stop token"
        )
    else:
        what = "tokenizes turn by turn and trains what follows the stop token"
    yield Finding(
        "FT408",
        "note",
        f"without ft, llamafactory {what}",
        field="data.tokenization",
        fix="run it with ft; data.tokenization: backend makes ft do the same",
    )
