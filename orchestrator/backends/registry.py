"""The known backends by name."""

from orchestrator.backends.axolotl.backend import AXOLOTL
from orchestrator.backends.base import Backend
from orchestrator.backends.llamafactory.backend import LLAMAFACTORY

BACKENDS: dict[str, Backend] = {"axolotl": AXOLOTL, "llamafactory": LLAMAFACTORY}
