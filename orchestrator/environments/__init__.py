"""Backend environments: made by uv from hashed locks, or prefixes that exist already."""
