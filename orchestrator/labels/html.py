"""The label report as one self-contained HTML page: no outside assets, no network.

What everybody must see (verdict, findings, charts) is plain HTML, made in `html_parts`. The rows
are data in the page, which its script shows, searches and sorts. The page's policy allows that one
script by its hash, so no text of a data set can run, whatever it is.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.labels import html_parts as parts

ASSETS = Path(__file__).parent / "page"
HOLE = re.compile(r"\{\{(\w+)\}\}")
DIGITS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "\"'&<>\\")
"""Digits of packed ids: printable, and safe in JSON and HTML as they are."""
HALF = len(DIGITS) // 2


def page(document: Mapping[str, Any]) -> str:
    """The report as an HTML page: a string without lone surrogates, to be written as UTF-8."""
    script = _asset("page.js")
    shown = {int(row["row"]) for row in document["rows"]}
    pieces = {
        "title": parts.title(document),
        "policy": _policy(script),
        "style": _asset("page.css"),
        "masthead": parts.masthead(document),
        "verdict": parts.verdict(document),
        "findings": parts.findings(document["findings"], shown, _code_counts(document["rows"])),
        "facts": parts.facts(document),
        "lengths": parts.lengths(document["lengths"]),
        "sources": parts.sources(document["sources"]),
        "sampled": parts.sampled(len(shown), int(document["rows_total"])),
        "data": _script_json(_embedded(document)),
        "script": script,
    }
    return HOLE.sub(lambda hole: pieces[hole[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").strip()


def _policy(script: str) -> str:
    """The content security policy: nothing but this script and the page's own style."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _script_json(value: Any) -> str:
    """JSON that no text in it can break out of: ASCII, and without `<`, `>` and `&`."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _code_counts(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(code for row in rows for code in row.get("codes", ()))


def _embedded(document: Mapping[str, Any]) -> dict[str, Any]:
    """The rows for the page's script. Ids are packed by how often they occur: about two characters
    for a token instead of six."""
    rows = document["rows"]
    uses: Counter[int] = Counter()
    for row in rows:
        uses.update(row["ids"])
    ranked = [token for token, _ in uses.most_common()]
    packed = {token: _packed(rank) for rank, token in enumerate(ranked)}
    special = set(document.get("special", ()))
    kinds = _Names()
    part_names = _Names()
    return {
        "digits": DIGITS,
        "ids": ranked,
        "words": _words(ranked, document["vocabulary"]),
        "special": [rank for rank, token in enumerate(ranked) if token in special],
        "rows": [_row(row, packed, kinds, part_names) for row in rows],
        "kinds": kinds.names,
        "parts": part_names.names,
        "levels": {item["code"]: item["level"] for item in document["findings"]},
        "messages": {item["code"]: item["message"] for item in document["findings"]},
        "marks": _marks(document["findings"]),
    }


class _Names:
    """Names that occur often, by number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


def _packed(rank: int) -> str:
    """A number in digits of base `HALF`; all but the last are from the upper half of `DIGITS`."""
    rank, last = divmod(rank, HALF)
    text = DIGITS[last]
    while rank:
        rank, digit = divmod(rank, HALF)
        text = DIGITS[HALF + digit] + text
    return text


def _words(ranked: list[int], vocabulary: Mapping[str, str]) -> list[str]:
    """The texts of the ids. Bytes of a character that was cut into several tokens stay bytes: the
    page's script puts them together."""
    return [parts.pieces(vocabulary.get(str(token), f"[{token}]")) for token in ranked]


def _row(
    row: Mapping[str, Any], packed: Mapping[int, str], kinds: _Names, part_names: _Names
) -> list[Any]:
    """One row: number, part, source, packed ids, how many, trained runs, spans, codes."""
    ids = row["ids"]
    return [
        row["row"],
        part_names.number(row.get("part") or ""),
        row.get("source"),
        "".join(map(packed.__getitem__, ids)),
        len(ids),
        [number for run in row["trained"] for number in run],
        [
            number
            for start, end, kind in row.get("spans", ())
            for number in (start, end, kinds.number(kind))
        ],
        list(row.get("codes", ())),
    ]


def _marks(findings: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """The offending tokens of all examples: row, part, token, code."""
    return [
        [example["row"], example.get("part") or "", example["token"], finding["code"]]
        for finding in findings
        for example in finding.get("examples", ())
        if example.get("token") is not None
    ]
