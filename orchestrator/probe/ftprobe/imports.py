"""Leaving out imports that no task can need.

Imports are nearly all of a short task's time, and some of the largest are optional extras that
other libraries pick up only because they are installed. A ``None`` in ``sys.modules`` makes Python
say that a package is not there, and those libraries then take their path without it.

Only packages that nothing uses for its work are listed. Leaving out more by what a configuration
speaks of was tried and given up: axolotl 0.19.0 imports bitsandbytes from one of its patches for
Llama in a full fine-tune that has nothing to do with it.
"""

import sys

# requests picks chardet and its large tables over charset_normalizer if both are installed;
# transformers imports scikit-learn for one threshold of assisted generation.
NEVER = ("chardet", "sklearn")


def leave_out() -> None:
    """Make the packages that no task needs look absent, for the life of this process."""
    for name in NEVER:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
