"""Checks of what is rendered: the backend's own rules, on the configuration that it will get."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from orchestrator.backends import fields
from orchestrator.backends.base import Paths, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import axolotl_rules, axolotl_types, counts, llamafactory_rules
from orchestrator.checks.rules import PROCESSES, broken, field_of
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

SERIES = {"axolotl": (600, axolotl_rules.RULES), "llamafactory": (700, llamafactory_rules.RULES)}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def rendered(recipe: Recipe) -> Iterator[Finding]:
    """What the backend would say of the rendered `train.yaml`."""
    backend = BACKENDS[recipe.backend]
    spread = recipe.distributed
    target = Target("cuda", True, 1 if spread.strategy == "none" else spread.gpus or 1)
    paths = Paths(prepared=recipe.data.prepared or "")
    text = backend.render(recipe, paths, target).text("train.yaml")
    given = {pair.key(recipe.backend) or "": pair.field for pair, _ in fields.given(recipe)}
    given |= {key: f"native.{recipe.backend}.{key}" for key in native(recipe)}
    config = {**yaml.load(text, _Loader), PROCESSES: counts.processes(recipe)}
    yield from of_config(recipe.backend, config, given)


def of_config(
    backend: str, config: Mapping[str, Any], given: Mapping[str, str]
) -> Iterator[Finding]:
    """The rules that a configuration breaks; `given`: fields of the keys that the user gave."""
    series, rules = SERIES[backend]
    if backend == "axolotl":
        for path, message in axolotl_types.misfits(config):
            key = path.partition(".")[0].partition("[")[0]
            if key not in TOLD:
                field = field_of((key,), given)
                yield Finding(
                    "FT601",
                    "error",
                    f"{path} {message}",
                    field=field,
                    fix="write it like that, or remove it",
                )
    yield from broken(rules, config, series=series, given=given)


TOLD = {"warmup_steps", "eval_strategy", "save_strategy", "bf16", *axolotl_rules.SPLIT_LISTS}
"""Keys whose types have rules of their own."""


def native(recipe: Recipe) -> Mapping[str, Any]:
    """The chosen backend's native block."""
    block: Mapping[str, Any] = getattr(recipe.native, recipe.backend)
    return block


TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
}
SEVERAL = {"fsdp", "debug", "report_to"}
"""Keys whose choices may be combined in one text."""


def native_types(recipe: Recipe) -> Iterator[Finding]:
    """LLaMA-Factory takes any type and any word: `lora_rank: "8"` fails minutes later, or never."""
    keys = BACKENDS["llamafactory"].native_keys()
    for key, value in recipe.native.llamafactory.items():
        known = keys.get(key)
        if not known or value is None:
            continue
        names = str(known.get("type", "")).split(" | ")
        field = f"native.llamafactory.{key}"
        if set(names) - {"null"} <= set(TYPES) and not _is_one_of(value, names):
            wanted = " or ".join(name for name in names if name != "null")
            yield Finding(
                "FT235", "error", f"{key} must be {wanted}, not {_kind(value)}", field=field
            )
        elif isinstance(value, str) and key not in SEVERAL:
            choices = known.get("choices", ())
            if choices and value not in choices:
                words = ", ".join(map(str, choices))
                yield Finding(
                    "FT235", "error", f"{key} is one of {words}, not {value!r}", field=field
                )


def _is_one_of(value: Any, names: list[str]) -> bool:
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, TYPES[name]) for name in names if name in TYPES)


def _kind(value: Any) -> str:
    return {"str": "text", "bool": "true or false", "dict": "a mapping"}.get(
        type(value).__name__, type(value).__name__
    )
