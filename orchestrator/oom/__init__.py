"""Out-of-memory errors: recognised, explained, and answered by a change that keeps the result.

`shortage.py` reads what a failed process has said, `kills.py` what the kernel has counted.
`ladder.py` is the pure part: what to change next, and why. `attempts.py` trains, and trains again.
"""
