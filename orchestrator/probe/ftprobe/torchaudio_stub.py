"""Stand in for torchaudio where it is not installed.

llamafactory 0.9.5 imports torchaudio unconditionally (``data/mm_plugin.py`` line 30) although only
audio inputs use it. The wheels on the registry are CUDA builds that refuse a CPU or a differing
CUDA torch, so an environment for text training does better without them.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

NAME = "torchaudio"


def missing(name: str) -> NoReturn:
    """Fail at the first real use; probing for dunder names must look like any plain module."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(f"torchaudio is not installed in this environment ({name} was needed)")


def install() -> bool:
    """Put the stub in place if the real package is absent; tell whether the stub is in use.

    Only presence is tested, since importing the real one costs seconds. A present but broken build
    fails in llamafactory's own import, with its own message, and ``doctor`` reports it.
    """
    if NAME in sys.modules:
        return getattr(sys.modules[NAME], "is_stub", False) is True
    if importlib.util.find_spec(NAME) is not None:
        return False
    stub = ModuleType(NAME)
    # importlib.util.find_spec raises ValueError for a loaded module without a spec, and
    # transformers asks it whether torchaudio is there.
    stub.__spec__ = ModuleSpec(NAME, loader=None)
    stub.__dict__.update(__version__="0", is_stub=True, __getattr__=missing)
    sys.modules[NAME] = stub
    return True
