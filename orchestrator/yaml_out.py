"""Writing YAML that every reader reads back as the same values.

Backends parse with PyYAML (YAML 1.1) or OmegaConf. What those read as another type is avoided:
floats always carry a dot (`1.0e-05`, PyYAML reads `1e-05` as text), text that looks like a
number, a boolean or null in either version is quoted, no aliases are written.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from orchestrator.recipe.yaml_source import resolve

_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SAFE_LOADER = yaml.SafeLoader("")
_SEXAGESIMAL_OR_NUMBER = re.compile(r"[-+]?[0-9][0-9_,.:eExXoO+-]*")


class _Dumper(_BASE):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _float(dumper: Any, value: float) -> Any:
    if math.isnan(value):
        text = ".nan"
    elif value in (float("inf"), float("-inf")):
        text = ".inf" if value > 0 else "-.inf"
    else:
        text = repr(value)
        if "e" in text:
            mantissa, exponent = text.split("e")
            sign = exponent[0] if exponent[0] in "+-" else "+"
            mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
            text = f"{mantissa}e{sign}{exponent.lstrip('+-')}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: Any, value: str) -> Any:
    style = None
    if "\n" in value:
        style = "|" if _block_is_exact(value) else '"'
    elif not isinstance(resolve(value), str) or _SEXAGESIMAL_OR_NUMBER.fullmatch(value):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _block_is_exact(value: str) -> bool:
    """A literal block keeps this text; else it is written with escapes."""
    printable = all(c == "\n" or (c.isprintable() and c not in "\u2028\u2029\x85") for c in value)
    lines = value.split("\n")
    return printable and not any(line != line.rstrip() or line.startswith(" ") for line in lines)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)


def dump(value: Mapping[str, Any]) -> str:
    """`value` as block-style YAML in the order given, ending with a newline."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        default_flow_style=False,
    )
    return text
