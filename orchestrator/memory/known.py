"""Configs of usual base models, so that a plan needs neither the model nor a network.

`architectures.json` holds, for each architecture, the facts of the published config.json that the
counts depend on, the hub ids that have it, and the parameter count that the checkpoint is published
with; a test compares the two.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("architectures.json")
MIRRORS = ("unsloth", "NousResearch")
"""Accounts that copy models under the name that they have at their maker's."""


@cache
def table() -> dict[str, dict[str, Any]]:
    """Name of each architecture -> its `config`, `names` and published `parameters`."""
    document: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
    return document


@cache
def _by_name() -> dict[str, str]:
    return {name.lower(): key for key, row in table().items() for name in row["names"]}


def config_of(model: str) -> dict[str, Any] | None:
    """The config of a hub id; None if the table does not have it."""
    names = _by_name()
    wanted = model.lower()
    account, _, name = wanted.partition("/")
    if wanted not in names and account in (mirror.lower() for mirror in MIRRORS):
        wanted = next((known for known in names if known.endswith(f"/{name}")), wanted)
    key = names.get(wanted)
    return dict(table()[key]["config"]) if key else None
