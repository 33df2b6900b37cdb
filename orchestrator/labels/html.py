"""placeholder until the page is merged"""

from collections.abc import Mapping
from typing import Any


def page(document: Mapping[str, Any]) -> str:
    raise NotImplementedError
