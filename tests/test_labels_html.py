"""The label page as text: nothing gets out of its place, and everything has one."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.labels import html_parts as parts
from orchestrator.labels.html import DIGITS, HALF, page
from tests.label_documents import ODD, VOCABULARY, document, finding

VOID = {"meta", "input", "br"}
FOREIGN = {"circle", "path"}

ROUGH = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "{{data}} {{script}}",
    "&lt;b&gt; &amp;",
    "\u2028\u2029\x00\x1b[31m\x85",
    "\u202eright to left\u2066\u200f",
    "\ud83d lone",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u0631\u062d\u0628\u0627",
    "]]> --> \\ \\u003c",
    "na\udcc3\udcafve \udcff",
]


class Outline(HTMLParser):
    """The elements of a page, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self._inside: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self._inside.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in FOREIGN
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        for index in self._inside:
            self.texts[index] = self.texts.get(index, "") + data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, self.texts.get(index, ""))
            for index, (name, attributes) in enumerate(self.elements)
            if name == tag
        ]

    def tags(self) -> list[str]:
        """All but the marks of line breaks."""
        return [tag for tag, found in self.elements if found.get("class") != "mark"]

    @property
    def data(self) -> dict[str, Any]:
        ((_, text),) = [found for found in self.all("script") if found[0].get("id") == "data"]
        loaded: dict[str, Any] = json.loads(text)
        return loaded


def unpacked(text: str) -> list[int]:
    ranks, value = [], 0
    for char in text:
        digit = DIGITS.index(char)
        if digit >= HALF:
            value = value * HALF + digit - HALF
        else:
            ranks.append(value * HALF + digit)
            value = 0
    return ranks


def test_page_needs_nothing_from_outside() -> None:
    text = page(document(20))
    assert not re.search(r"https?:|@import|url\(|<link|<iframe|\ssrc=(?!x)", text.split("<body")[0])
    outline = Outline(text)
    assert not any("src" in attributes for _, attributes in outline.elements)
    assert {tag for tag, _ in outline.elements} & {"link", "img", "iframe", "object"} == set()
    assert not any(name.startswith("on") for _, found in outline.elements for name in found)


def test_only_the_pages_own_script_may_run() -> None:
    outline = Outline(page(document(5)))
    ((_, script),) = [found for found in outline.all("script") if not found[0]]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        str(attributes["content"])
        for attributes, _ in outline.all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("rough", ROUGH)
def test_no_text_gets_out_of_its_place(rough: str) -> None:
    made = document(4, odd=False)
    plain = Outline(page(made))
    made.update(recipe=rough, prepared=rough, backend=rough, release=rough, made=rough)
    made["summary"].update(stop_tokens=[rough], bos=rough)
    made["sources"][0]["name"] = rough
    made["rows"][0].update(source=rough, codes=[rough])
    made["rows"][1]["spans"][0][2] = rough
    made["vocabulary"] = dict.fromkeys(made["vocabulary"], rough)
    for one in made["findings"]:
        one.update(message=rough, why=rough, fix=rough, rule=rough)
        for example in one["examples"]:
            example.update(before=rough, offending=rough, after=rough)
    text = page(made)
    text.encode("utf-8")
    assert not re.search(
        "[\x00-\x08\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text
    )
    outline = Outline(text)
    assert outline.tags() == plain.tags()
    shown = parts.seen(rough)
    assert shown in [heading for _, heading in outline.all("h1")]
    copied = [str(found["data-copy"]) for found, _ in outline.all("button") if "data-copy" in found]
    assert copied == [shown, shown]
    assert outline.data["rows"][0][7] == [rough]
    assert set(outline.data["words"]) == {parts.pieces(rough)}


def test_rows_come_back_as_they_were() -> None:
    made = document(30, pairs=True)
    data = Outline(page(made)).data
    for row, (number, part, source, packed, tokens, runs, spans, codes) in zip(
        made["rows"], data["rows"], strict=True
    ):
        assert (number, data["parts"][part], source, codes) == (
            row["row"], row["part"], row["source"], row["codes"],
        )  # fmt: skip
        ids = [data["ids"][rank] for rank in unpacked(packed)]
        assert (ids, tokens) == (row["ids"], len(row["ids"]))
        assert [runs[at : at + 2] for at in range(0, len(runs), 2)] == row["trained"]
        kinds = [
            [*spans[at : at + 2], data["kinds"][spans[at + 2]]] for at in range(0, len(spans), 3)
        ]
        assert kinds == row["spans"]
    words = {data["ids"][rank]: word for rank, word in enumerate(data["words"])}
    assert words[31000] == ODD[31000]
    assert words[31007] == "\ufffd"
    assert words[31009] == " na\udcc3"
    assert len(words) < len(VOCABULARY)


def test_every_id_of_a_large_vocabulary_is_packed() -> None:
    made = document(1, odd=False)
    ids = list(range(200_000, 200_000 + HALF**3 + 50))
    made["rows"][0]["ids"] = ids
    data = Outline(page(made)).data
    (row,) = data["rows"]
    assert [data["ids"][rank] for rank in unpacked(row[3])] == ids
    assert data["words"][0] == "[200000]"


def test_page_is_small() -> None:
    rows = document(400)
    size = len(page(rows).encode())
    tokens = sum(len(row["ids"]) for row in rows["rows"])
    assert size < 4 * tokens


@pytest.mark.parametrize("verdict", ["pass", "warning", "error"])
def test_verdict_is_in_words_first(verdict: str) -> None:
    outline = Outline(page({**document(3), "verdict": verdict}))
    (first, *_) = outline.all("h2")
    assert first[1] == parts.VERDICTS[verdict]
    assert outline.all("title")[0][1].startswith(parts.VERDICTS[verdict])


def test_structure_for_readers_and_screen_readers() -> None:
    outline = Outline(page(document(60)))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = [str(found["id"]) for _, found in outline.elements if "id" in found]
    assert len(names) == len(set(names))
    assert {
        str(found["aria-labelledby"]) for _, found in outline.elements if "aria-labelledby" in found
    } <= set(names)
    assert all(text.strip() or found.get("aria-label") for found, text in outline.all("button"))
    assert {tag for tag, _ in outline.elements} >= {"main", "header", "nav", "table", "noscript"}
    assert all("scope" in found for found, _ in outline.all("th"))


def test_findings_are_cards_the_worst_first() -> None:
    text = page(document(60))
    assert text.index('id="FT505"') < text.index('id="FT512"')
    outline = Outline(text)
    assert [text for _, text in outline.all("mark")] == ["<|im_end|>"] * 2
    links = [str(found["href"]) for found, _ in outline.all("a")]
    assert "#row=3" in links
    assert any(re.fullmatch(r"#row=3&token=\d+", link) for link in links)
    assert not any("9999999" in link for link in links)
    assert "not in this page" in text
    assert "2 of 60 (3.3\u00a0%)" in text


def test_many_findings_have_a_list_and_none_is_said() -> None:
    made = document(5)
    assert 'class="brief"' not in page(made).split("<body")[1].split('id="findings"')[0]
    made["findings"].append(finding("FT530", "note", "few", "few rows", count=5, of=5))
    text = page(made)
    assert '<ul class="brief">' in text
    assert "1 error, 1 warning and 1 note in 5 rows" in text
    made["findings"] = []
    assert "Nothing was found" in page(made)


def test_finding_about_what_is_missing_still_has_a_mark() -> None:
    made = document(5)
    example: dict[str, Any] = {
        "row": 3,
        "part": "chosen",
        "token": 9,
        "before": "a",
        "offending": "",
        "after": "",
    }
    made["findings"][0]["examples"] = [example]
    text = page(made)
    assert ">nothing here</mark>" in text
    assert "#row=3&amp;part=chosen&amp;token=9" in text
    example["token"] = None
    assert '"#row=3&amp;part=chosen">row 3, chosen</a>' in page(made)


@pytest.mark.parametrize(
    ("cutoff", "line", "note"),
    [(48, "left:75.00%", "dashed line"), (900, None, "beyond the longest"), (None, None, "no cut")],
)
def test_histogram_has_the_cutoff(cutoff: int | None, line: str | None, note: str) -> None:
    found = {"edges": [0, 32, 64], "counts": [2, 1], "cutoff": cutoff, "percentiles": {"50": 20}}
    text = parts.lengths(found)
    assert (line in text) if line else ('class="cutoff' not in text)
    assert note in text
    assert 'title="0 to 32 tokens: 2 rows"' in text


def test_empty_data_makes_a_page() -> None:
    made = document(1, odd=False)
    made.update(rows=[], rows_total=0, sources=[], findings=[], vocabulary={})
    made["lengths"] = {"edges": [0], "counts": [], "cutoff": None, "percentiles": {}}
    made["summary"].update(
        rows=0, sequences=0, tokens=0, trained_tokens=0, stop_tokens=[], bos=None
    )
    text = page(made)
    Outline(text)
    assert "no rows to measure" in text
    assert "All 0 rows are here" in text


def test_sample_is_said_to_be_one() -> None:
    assert "5 of 100,000 rows are here" in page({**document(5), "rows_total": 100_000})


def test_bytes_become_characters() -> None:
    assert parts.whole("na\udcc3\udcafve \udcff \ud83d") == "na\u00efve \ufffd \ufffd"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1, "100"), (0.5, "50"), (0.98213, "98.2"), (0.9999, "> 99.9"), (0.0001, "< 0.1")],
)
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert parts.percent(share) == f"{text}\u00a0%"
