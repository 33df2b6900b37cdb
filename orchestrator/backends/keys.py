"""The keys that a pinned backend release accepts, from the data file beside its module.

The files are written by the probe's `keys` task inside the backend environment (`make keys`), so
that they are what the release itself says.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def load_keys(backend: str) -> Mapping[str, Any]:
    """The data file of a backend as it was dumped."""
    text = (
        resources.files("orchestrator.backends").joinpath(backend, "keys.json").read_text("utf-8")
    )
    document: dict[str, Any] = json.loads(text)
    return document
