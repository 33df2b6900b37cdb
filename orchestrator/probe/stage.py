"""Run one request in this process: ``python stage.py REQUEST.json``.

This file stays next to nothing at import time, because it is imported twice: ``datasets`` starts
worker and manager processes by spawn, and each of them imports the main module again. Where that is
a backend's console script, the second import costs as much as the first (8 s with axolotl 0.19.0).
"""

import sys

if __name__ == "__main__":
    from ftprobe.process import main  # type: ignore[import-not-found, unused-ignore]

    main(sys.argv)
