"""Leaving out imports that a task cannot need.

Imports are nearly all of a short task's time, and some of the largest are optional extras that
other libraries pick up only because they are installed. A ``None`` in ``sys.modules`` makes Python
say that a package is not there, and those libraries then take their path without it. Measured on
axolotl's preprocess, in seconds of import time under load: 43 before, 27 after.

This changes the process for good (libraries remember what was available), so only a process that
runs one task and ends may do it.
"""

import sys

# requests picks chardet (and its large tables) over charset_normalizer if both are installed.
# transformers imports scikit-learn for one threshold of assisted generation.
ALWAYS = ("chardet", "sklearn")

# Quantized weights and their optimizers, where no weights are loaded.
WEIGHTS = ("bitsandbytes", "torchao")

LEFT_OUT = {
    "preprocess": (*ALWAYS, *WEIGHTS),
    "keys": (*ALWAYS, *WEIGHTS),
    "describe_model": (*ALWAYS, *WEIGHTS),
    "train": ALWAYS,
    "merge": ALWAYS,
    "validate": ALWAYS,
    "validate_all": ALWAYS,
    "doctor": ALWAYS,
}


def leave_out(task: str) -> None:
    """Make the packages that this task cannot need look absent."""
    for name in LEFT_OUT.get(task, ()):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
