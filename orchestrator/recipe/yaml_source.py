"""YAML with the place of every key and value, read by the rules of YAML 1.2.

PyYAML parses; the scalars are resolved here, because YAML 1.1 (PyYAML's own rules) reads `1e-4`
as text, `no` as false and `0777` as 511, which is how learning rates turn into strings. What
would be read silently wrong is refused: duplicate keys, tags, aliases that multiply.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.findings import Finding, Place

MAX_BYTES = 1_000_000
MAX_DEPTH = 60
MAX_VALUES = 50_000

Path_ = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_QUOTED = ("'", '"', "|", ">")
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


@dataclass(slots=True)
class Document:
    """A parsed file: plain Python values and, by path, where keys and values stand."""

    file: str
    value: Any = None
    keys: dict[Path_, Place] = field(default_factory=dict)
    values: dict[Path_, Place] = field(default_factory=dict)
    comment: str = ""

    def place(self, path: Path_, *, key: bool = False) -> Place:
        """Where `path` stands; the nearest enclosing value if it is not in the file itself."""
        where = self.keys if key else self.values
        for end in range(len(path), -1, -1):
            known = where.get(path[:end]) or self.values.get(path[:end])
            if known:
                return known
        return Place(self.file, 1, 1)


class _Refused(Exception):
    def __init__(self, finding: Finding) -> None:
        self.finding = finding


def read_text(path: Path) -> tuple[str, list[Finding]]:
    """The file's text, or why it cannot be read (`FT002`, `FT003`)."""
    shown = str(path)
    try:
        if path.is_dir():
            return "", [Finding("FT003", "error", "this is a folder, not a file", Place(shown))]
        if path.stat().st_size > MAX_BYTES:
            return "", [
                Finding(
                    "FT003",
                    "error",
                    "the file is larger than 1 MB, this is no recipe",
                    Place(shown),
                )
            ]
        raw = path.read_bytes()
    except FileNotFoundError:
        return "", [Finding("FT003", "error", "there is no such file", Place(shown))]
    except OSError as error:
        return "", [Finding("FT003", "error", f"cannot be read: {error.strerror}", Place(shown))]
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        return "", [
            Finding(
                "FT002",
                "error",
                f"not UTF-8 text (byte 0x{raw[error.start]:02x})",
                Place(shown, line, column),
                fix="save the file as UTF-8",
            )
        ]


def parse(text: str, file: str, *, yaml_1_1: bool = False) -> tuple[Document, list[Finding]]:
    """Parse one YAML document. On a syntax error the document is empty and the finding says where.

    `yaml_1_1` reads as the backends do: `yes` and `on` are true, the last of two keys counts.

    Findings: `FT001` syntax, `FT004` duplicate key, `FT005` aliases or nesting out of bounds,
    `FT006` a tag or a key that is not text.
    """
    document = Document(file, comment=_top_comment(text))
    findings: list[Finding] = []
    try:
        _check_shape(text, file)
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            builder = _Builder(document, findings, yaml_1_1=yaml_1_1)
            document.value = builder.build(node, ())
    except _Refused as refused:
        findings.append(refused.finding)
    except yaml.MarkedYAMLError as error:
        findings.append(_syntax(error, file))
    except yaml.YAMLError as error:
        findings.append(_unreadable(error, text, file))
    except (RecursionError, ValueError) as error:
        findings.append(Finding("FT001", "error", f"cannot be parsed: {error}", Place(file, 1, 1)))
    return document, findings


def _top_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif line.strip() or lines:
            break
    return "\n".join(lines)


def _check_shape(text: str, file: str) -> None:
    """Walk the events once, so that nothing deep or multiplying is ever built."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(
                    Finding(
                        "FT005",
                        "error",
                        f"nested more than {MAX_DEPTH} levels deep",
                        _place(file, event.start_mark),
                    )
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused(
                    Finding(
                        "FT001",
                        "error",
                        "a second YAML document starts here",
                        _place(file, event.start_mark),
                        fix="keep one recipe in a file",
                    )
                )


def _place(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


def _syntax(error: yaml.MarkedYAMLError, file: str) -> Finding:
    mark = error.problem_mark or error.context_mark
    place = _place(file, mark) if mark else Place(file, 1, 1)
    problem = error.problem or "cannot be parsed"
    fix = ""
    if "found character '\\t'" in problem or "cannot start any token" in problem:
        fix = "indent with spaces; put text with special characters into quotes"
    elif "mapping values are not allowed" in problem:
        fix = "check the indentation of this line; put text with a colon into quotes"
    elif "found undefined alias" in problem:
        fix = "text that starts with * must be in quotes"
    context = f" ({error.context})" if error.context else ""
    return Finding("FT001", "error", f"YAML syntax: {problem}{context}", place, fix=fix)


def _unreadable(error: yaml.YAMLError, text: str, file: str) -> Finding:
    position = getattr(error, "position", 0) or 0
    before = text[:position]
    place = Place(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    reason = getattr(error, "reason", None) or str(error)
    return Finding("FT001", "error", f"YAML syntax: {reason}", place)


class _Builder:
    """Turns nodes into values and remembers places."""

    def __init__(
        self, document: Document, findings: list[Finding], *, yaml_1_1: bool = False
    ) -> None:
        self.document = document
        self.yaml_1_1 = yaml_1_1
        self.findings = findings
        self.count = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node, path: Path_) -> Any:
        place = _place(self.document.file, node.start_mark)
        self.document.values[path] = place
        self.count += 1
        if self.count > MAX_VALUES:
            raise _Refused(
                Finding(
                    "FT005",
                    "error",
                    f"more than {MAX_VALUES} values once its aliases are expanded",
                    place,
                    fix="write the values out instead of using aliases",
                )
            )
        if id(node) in self.open:
            raise _Refused(Finding("FT005", "error", "an alias contains itself", place))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = _place(self.document.file, key_node.start_mark)
            merges = isinstance(key_node, yaml.ScalarNode) and key_node.style not in _QUOTED
            if merges and key_node.value == "<<":
                for source in self._merge_sources(value_node):
                    for key, value in self._mapping(source, path).items():
                        merged.setdefault(key, value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(Finding("FT006", "error", "a key must be plain text", place))
            key = key_node.value
            if key in result:
                first = self.document.keys[(*path, key)]
                self.findings.append(
                    Finding(
                        "FT004",
                        "error",
                        f"duplicate key {key!r} (first on line {first.line})",
                        place,
                        field=dotted((*path, key)),
                        fix="keep one of the two",
                    )
                )
                if not self.yaml_1_1:
                    continue
            self.document.keys[(*path, key)] = place
            result[key] = self.build(value_node, (*path, key))
        return {**merged, **result} if merged else result

    def _merge_sources(self, node: yaml.Node) -> Iterator[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for child in nodes:
            if not isinstance(child, yaml.MappingNode) or id(child) in self.open:
                place = _place(self.document.file, child.start_mark)
                raise _Refused(Finding("FT006", "error", "'<<' merges mappings only", place))
            yield child

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        tag = node.tag or ""
        if not tag.startswith("tag:yaml.org,2002:"):
            raise _Refused(
                Finding(
                    "FT006",
                    "error",
                    f"the tag {tag} is not understood",
                    place,
                    fix="text that starts with ! must be in quotes",
                )
            )
        if node.style in _QUOTED:
            return node.value
        if self.yaml_1_1 and node.value.lower() in _OLD_BOOLEANS:
            return _OLD_BOOLEANS[node.value.lower()]
        return resolve(node.value)


def resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if len(text) < 400:
        if _INT.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEX.fullmatch(text):
            return int(text[2:], 16)
        if _FLOAT.fullmatch(text):
            return float(text)
    return _SPECIAL.get(text.lower(), text)


def dotted(path: Path_) -> str:
    """`("data", "sources", 0, "path")` as `data.sources[0].path`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
