"""What a backend module must offer, and the frozen facts it renders from.

A backend turns a recipe into files; it knows no clock, no process and no disk. Adding one means a
folder with a module-level object that satisfies `Backend`, registered in `registry.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe


@dataclass(frozen=True, slots=True)
class Target:
    """The machine a run is rendered for."""

    device: Literal["cuda", "cpu"] = "cuda"
    bf16: bool = True
    processes: int = 1

    def dtype(self, wanted: str) -> str:
        """What `auto` means here. On a CPU everything is computed in float32."""
        if self.device == "cpu":
            return "float32"
        if wanted == "auto":
            return "bfloat16" if self.bf16 else "float16"
        return wanted


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a run reads and writes, as the backend is to see it.

    The defaults are relative: that is how `ft recipe render --out` writes files that the backend's
    own commands can use where they stand.
    """

    rendered: str = "."
    prepared: str = "prepared"
    training: str = "training"
    merged: str = "merged"
    base: str = ""
    sources: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    template: str = ""
    deepspeed: Mapping[str, Any] | None = None
    """Content of the user's own DeepSpeed file, if it was read."""


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A file of a run, by name inside `rendered/`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Files of a recipe and the variables that the backend process needs for them."""

    files: tuple[RenderedFile, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The text of one file.

        Raises:
            KeyError: there is no such file.
        """
        for file in self.files:
            if file.name == name:
                return file.text
        raise KeyError(name)


class Backend(Protocol):
    """A training backend."""

    name: str
    label: str

    def config(self, recipe: Recipe, paths: Paths, target: Target) -> dict[str, Any]:
        """The training configuration, as data."""
        ...

    def render(self, recipe: Recipe, paths: Paths, target: Target) -> Rendered:
        """The backend's files: `preprocess.yaml`, `train.yaml`, `merge.yaml` and side files."""
        ...

    def tokenization(self, recipe: Recipe) -> Mapping[str, Any] | None:
        """What the probe changes while the backend tokenizes, so that all backends agree."""
        ...

    def by_itself(self, recipe: Recipe) -> Iterator[Finding]:
        """What the rendered files do otherwise when the backend's own commands use them."""
        ...

    def findings(self, recipe: Recipe) -> Iterator[Finding]:
        """What of this recipe the backend cannot do, or does otherwise than it says."""
        ...

    def template_names(self) -> tuple[str, ...]:
        """Names of the backend's own chat templates."""
        ...

    def native_keys(self) -> Mapping[str, Any]:
        """The pinned release's accepted top-level keys."""
        ...


def warmup(recipe: Recipe) -> dict[str, Any]:
    """Only one of the two: LLaMA-Factory's ratio, even 0.0, silently overrides the steps, and
    axolotl takes no more than one; it warms up by itself if it gets neither."""
    if recipe.training.warmup_ratio:
        return {"warmup_ratio": recipe.training.warmup_ratio}
    steps = recipe.training.warmup_steps
    return {} if steps is None else {"warmup_steps": steps}


def merged(config: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `top` put on it, mappings into mappings; None removes a key."""
    result = dict(config)
    for key, value in top.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result
