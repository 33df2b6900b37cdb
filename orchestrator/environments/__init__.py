"""Backend environments: made by uv from hashed locks, or prefixes that exist already.

Nothing is imported here: `make install` runs `environments.indexes` before any library of ours is
installed, and `ft --help` must be quick.
"""
