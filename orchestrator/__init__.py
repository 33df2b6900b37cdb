"""`ft`: one strict recipe, two training backends, every token accounted for."""

__version__ = "0.1.0"
