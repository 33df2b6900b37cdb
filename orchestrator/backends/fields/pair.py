"""One row of the two-way table: a neutral field and the key that each backend has for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """`field` is dotted, and so are nested native keys; None: the backend has no such key."""

    field: str
    axolotl: str | None
    llamafactory: str | None

    def key(self, backend: str) -> str | None:
        """The key of a backend by name."""
        return self.axolotl if backend == "axolotl" else self.llamafactory
