"""Keys that the pinned release does not know.

axolotl ignores them without a word at every level (axolotl 0.19.0: pydantic's `extra` is not
forbidden), LLaMA-Factory refuses them at the top (llamafactory 0.9.5). Either way they do nothing,
so they do not get into a recipe, and each is told with its line and the nearest known key.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from orchestrator.backends.keys import load_keys
from orchestrator.backends.registry import BACKENDS
from orchestrator.findings import Finding, Level
from orchestrator.recipe.yaml_source import Document, Path_, dotted


class Screen:
    """Takes unknown keys out of a configuration and remembers them as findings (`FT511`)."""

    def __init__(self, backend: str, document: Document, level: Level) -> None:
        self.backend = backend
        self.document = document
        self.level: Level = level
        self.table = load_keys(backend)
        self.release = f"{BACKENDS[backend].label} {self.table['release']}"
        self.findings: list[Finding] = []

    def known(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration without what the release does not know."""
        keys = self.table["keys"]
        listed = config.get("plugins")
        plugins = {str(name) for name in listed} if isinstance(listed, list) else set()
        result = {}
        for key, value in config.items():
            spec = keys.get(key)
            if spec is None:
                self._tell((key,), key, keys)
            elif spec.get("plugin") and spec["plugin"] not in plugins:
                self._without_plugin(key, spec["plugin"])
            else:
                result[key] = self._inside(value, spec, (key,))
        return result

    def _inside(self, value: Any, spec: Mapping[str, Any], path: Path_) -> Any:
        names = spec.get("models")
        if not names or self.backend != "axolotl":
            return value
        if isinstance(value, list):
            return [self._inside(item, spec, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        fields = self._fields(tuple(names))
        if not fields:
            return value
        result = {}
        for key, inner in value.items():
            plain = key.removeprefix("fsdp_") if path[0] == "fsdp_config" else key
            if key in fields:
                result[key] = self._inside(inner, fields[key], (*path, key))
            elif plain in fields:
                result[key] = inner
            else:
                self._tell((*path, key), key, fields)
        return result

    def _fields(self, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """The fields of all models of a union; nested models are joined."""
        fields: dict[str, dict[str, Any]] = {}
        for name in names:
            for key, spec in self.table["models"].get(name, {}).items():
                models = [*fields.get(key, {}).get("models", ()), *spec.get("models", ())]
                fields[key] = {**spec, "models": models}
        return fields

    def _tell(self, path: Path_, key: str, known: Mapping[str, Any]) -> None:
        close = difflib.get_close_matches(key, known, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        does = "ignores" if self.backend == "axolotl" else "refuses"
        self.findings.append(
            Finding(
                "FT511",
                self.level,
                f"{self.release} does not know {dotted(path)!r}{guess} and {does} it: left out",
                self.document.place(path, key=True),
                field=dotted(path),
            )
        )

    def _without_plugin(self, key: str, plugin: str) -> None:
        self.findings.append(
            Finding(
                "FT511",
                self.level,
                f"{self.release} ignores {key!r} without its plugin: left out",
                self.document.place((key,), key=True),
                field=key,
                fix=f"plugins: [{plugin}]",
            )
        )
