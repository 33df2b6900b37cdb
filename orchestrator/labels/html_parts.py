"""The parts of the label page that need no script: verdict, findings, charts."""

import html
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

LEVELS = ("error", "warning", "note")
VERDICTS = {
    "pass": "Ready to train",
    "warning": "Look again before you train",
    "error": "Do not train yet",
}
WORDS = {"pass": "Pass", "error": "Error", "warning": "Warning", "note": "Note"}
ICONS = {
    "pass": '<circle cx="12" cy="12" r="10"/><path class="cut" d="m7 12.5 3.5 3.5L17 8.5"/>',
    "warning": '<path d="M12 2 23 21H1z"/><path class="cut" d="M12 9v6m0 2.6v.4"/>',
    "error": '<path d="M8 1.5h8L22.5 8v8L16 22.5H8L1.5 16V8z"/>'
    '<path class="cut" d="m8.5 8.5 7 7m0-7-7 7"/>',
    "note": '<circle cx="12" cy="12" r="10"/><path class="cut" d="M12 11v6.5M12 7v.4"/>',
}
SHOWN_EXAMPLES = 1
BRIEF_FROM = 3

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
_BYTES = re.compile("[\udc80-\udcff]+")
_OTHER_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def whole(text: str) -> str:
    """Text that can be written as UTF-8: bytes (`surrogateescape`) become the characters that they
    are, and what is none becomes U+FFFD."""
    return _BYTES.sub(_characters, pieces(text))


def pieces(text: str) -> str:
    """Text whose only surrogates are bytes."""
    return _OTHER_SURROGATES.sub("\ufffd", text)


def _characters(found: re.Match[str]) -> str:
    return found[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def seen(text: str) -> str:
    """Text in which control characters and marks of direction are visible and have no effect."""
    return _UNSEEN.sub(lambda found: _name(found[0]), whole(text))


def _name(char: str) -> str:
    return chr(0x2400 + ord(char)) if char < " " else f"[U+{ord(char):04X}]"


def safe(text: object) -> str:
    """Any text for use in HTML, in elements and in attributes."""
    return html.escape(seen(str(text)))


def count(number: float | None) -> str:
    """A number with separators; `unknown` for none."""
    if number is None:
        return "unknown"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.1f}"


def percent(share: float | None) -> str:
    """A share as percent. Only all is 100 %, and only nothing is 0 %."""
    if share is None:
        return "unknown"
    if 0 < share < 0.001:
        return "< 0.1\u00a0%"
    if 0.999 < share < 1:
        return "> 99.9\u00a0%"
    return f"{share * 100:.1f}".removesuffix(".0") + "\u00a0%"


def plural(number: int, name: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def icon(level: str) -> str:
    """The sign of a level: each has a shape of its own."""
    return f'<svg class="icon {level}" viewBox="0 0 24 24" aria-hidden="true">{ICONS[level]}</svg>'


def title(document: Mapping[str, Any]) -> str:
    """The title of the window."""
    return safe(f"{VERDICTS[document['verdict']]}: {document['recipe']} \u2013 label report")


def masthead(document: Mapping[str, Any]) -> str:
    """What was looked at, and when."""
    made = str(document["made"]).replace("T", " ").replace("Z", " UTC")
    limit = document.get("sequence_length")
    facts = [
        ("Backend", f"{document['backend']} {document['release']}"),
        ("Sequence length", count(limit) if limit else "not set"),
        ("Made", made),
        ("Prepared data", document["prepared"]),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{safe(value)}</dd></div>" for name, value in facts)
    return f'<h1>{safe(document["recipe"])}</h1><dl class="about">{items}</dl>'


def verdict(document: Mapping[str, Any]) -> str:
    """The verdict in words, what it rests on, and how much is trained."""
    level = document["verdict"]
    return (
        f'<section class="verdict {level}" aria-labelledby="verdict">{icon(level)}'
        f'<div><p class="level">{WORDS[level]}</p><h2 id="verdict">{VERDICTS[level]}</h2>'
        f"<p>{_reason(document)}</p></div>{_trained(document['summary'])}"
        f"{_brief(document['findings'])}</section>"
    )


def _brief(found: Sequence[Mapping[str, Any]]) -> str:
    """What was found in a few lines, where the cards are too many to see at once."""
    if len(found) < BRIEF_FROM:
        return ""
    lines = "".join(
        f'<li class="{finding["level"]}">{icon(finding["level"])}'
        f'<a href="#{safe(finding["code"])}">{safe(finding["message"])}</a></li>'
        for finding in by_level(found)
    )
    return f'<ul class="brief">{lines}</ul>'


def _reason(document: Mapping[str, Any]) -> str:
    rows = plural(document["summary"]["rows"], "row")
    levels = [finding["level"] for finding in document["findings"]]
    said = [plural(levels.count(level), level) for level in LEVELS if level in levels]
    if not said:
        return f"No rule objects to the {rows} of prepared data."
    return f"{_listed(said)} in {rows} of prepared data."


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _trained(summary: Mapping[str, Any]) -> str:
    share = summary["trained_share"]
    return (
        f'<figure class="trained-share"><figcaption><b>{percent(share)}</b> of all tokens are '
        f"trained</figcaption>{bar(share)}<p>{count(summary['trained_tokens'])} of "
        f"{count(summary['tokens'])} tokens</p></figure>"
    )


def bar(share: float | None) -> str:
    """A share as a bar; the number stands beside it in words."""
    width = max(0.0, min(1.0, share or 0.0)) * 100
    return f'<span class="bar" aria-hidden="true"><i style="width:{width:.2f}%"></i></span>'


def findings(
    found: Sequence[Mapping[str, Any]], shown: Collection[int], counts: Mapping[str, int]
) -> str:
    """All findings as cards, the worst first. `shown` are the rows that are in the page."""
    if not found:
        return '<p class="quiet">Nothing was found. Every rule is content with this data.</p>'
    cards = (_card(finding, shown, counts.get(finding["code"], 0)) for finding in by_level(found))
    return f'<ol class="findings">{"".join(cards)}</ol>'


def by_level(found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Findings, the worst first."""
    return sorted(found, key=lambda finding: LEVELS.index(finding["level"]))


def _card(finding: Mapping[str, Any], shown: Collection[int], in_page: int) -> str:
    level = finding["level"]
    examples = list(finding.get("examples", ()))
    code = safe(finding["code"])
    return (
        f'<li class="finding {level}" id="{code}"><div class="about-it">'
        f'<p class="level">{icon(level)}{WORDS[level]} <code>{code}</code> '
        f'<span class="rule">{safe(finding["rule"])}</span></p>'
        f"<h3>{safe(finding['message'])}</h3><p>{safe(finding['why'])}</p>"
        f"{_fix(finding.get('fix'))}{_where(finding, shown, in_page)}</div>"
        f"{_examples(examples, shown)}</li>"
    )


def _fix(fix: str | None) -> str:
    if not fix:
        return ""
    return (
        f'<div class="fix"><b>Fix</b><code>{safe(fix)}</code>'
        f'<button type="button" class="copy" data-copy="{safe(fix)}" '
        'aria-label="Copy the fix">Copy</button></div>'
    )


def _where(finding: Mapping[str, Any], shown: Collection[int], in_page: int) -> str:
    rows = finding.get("rows", ())
    number, of = finding.get("count") or 0, finding.get("of") or 0
    if not number and not rows:
        return ""
    share = f" ({percent(number / of)})" if of else ""
    total = f"{count(number)} of {count(of)}{share}" if of else count(number)
    links = "".join(f"<li>{_row_link(row, '', None, shown, str(row))}</li>" for row in rows)
    more = "<li>\u2026</li>" if number > len(rows) and rows else ""
    if any(row not in shown for row in rows):
        more += '<li class="quiet">(without a link: not in this page)</li>'
    listed = f'<ul class="row-links" aria-label="rows">{links}{more}</ul>' if rows else ""
    return f'<div class="where"><b>{total}</b>{listed}{_show_all(finding["code"], in_page)}</div>'


def _show_all(code: str, in_page: int) -> str:
    if not in_page:
        return ""
    return (
        f'<button type="button" class="show needs-script" data-show="{safe(code)}">'
        f"Show {plural(in_page, 'row')} below</button>"
    )


def _row_link(row: int, part: str, token: int | None, shown: Collection[int], text: str) -> str:
    if row not in shown:
        return f"<span>{safe(text)}</span>"
    target = f"row={row}" + (f"&part={part}" if part else "")
    target += "" if token is None else f"&token={token}"
    return f'<a href="#{safe(target)}">{safe(text)}</a>'


def _examples(examples: Sequence[Mapping[str, Any]], shown: Collection[int]) -> str:
    if not examples:
        return ""
    first = "".join(_example(example, shown) for example in examples[:SHOWN_EXAMPLES])
    rest = "".join(_example(example, shown) for example in examples[SHOWN_EXAMPLES:])
    number = len(examples) - SHOWN_EXAMPLES
    more = f"<details><summary>{plural(number, 'more example')}</summary>{rest}</details>"
    return f'<div class="examples">{first}{more if rest else ""}</div>'


def _example(example: Mapping[str, Any], shown: Collection[int]) -> str:
    row, part, token = example["row"], example.get("part") or "", example.get("token")
    place = f"row {row}{f', {part}' if part else ''}"
    place += "" if token is None else f", token {token}"
    offending = _excerpt(example["offending"]) or "nothing here"
    return (
        '<figure class="example"><blockquote><span class="quiet">'
        f"{_excerpt(example.get('before', ''))}</span>"
        f'<mark aria-label="offending token">{offending}</mark>'
        f'<span class="quiet">{_excerpt(example.get("after", ""))}</span></blockquote>'
        f"<figcaption>{_row_link(row, part, token, shown, place)}</figcaption></figure>"
    )


def _excerpt(text: str) -> str:
    return safe(text).replace("\n", '<i class="mark">\u23ce</i>\n')


def facts(document: Mapping[str, Any]) -> str:
    """The summary as names and values."""
    summary = document["summary"]
    learned = summary.get("stops_trained")
    stops = "".join(f"<code>{safe(stop)}</code> " for stop in summary["stop_tokens"]) or "none"
    bos = f"<code>{safe(summary['bos'])}</code>" if summary.get("bos") else "none"
    rows, sequences = summary["rows"], summary["sequences"]
    lengths = " / ".join(count(summary[key]) for key in ("shortest", "median", "longest"))
    told = [
        ("Rows", count(rows), plural(sequences, "sequence") if sequences != rows else ""),
        ("Tokens", count(summary["tokens"]), f"{count(summary['trained_tokens'])} trained"),
        ("Length", lengths, "shortest / median / longest"),
        (
            "Stop tokens",
            stops,
            "" if learned is None else f"trained in {percent(learned)} of turns",
        ),
        ("Start token (BOS)", bos, ""),
        ("Cut off", count(summary.get("truncated")), "rows that lost their end"),
        ("Dropped", count(summary.get("dropped")), "rows that are not trained at all"),
        ("Duplicates", count(summary.get("duplicates")), "rows that occur before"),
        ("Traced", percent(summary.get("traced_share")), "of rows found in the source"),
    ]
    return "".join(
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{note}</small>' if note else ''}</dd></div>"
        for name, value, note in told
    )


def lengths(found: Mapping[str, Any]) -> str:
    """The histogram of lengths with the cut-off, and percentiles."""
    edges, counts = list(found["edges"]), list(found["counts"])
    cutoff = found.get("cutoff")
    if not counts or len(edges) != len(counts) + 1:
        return '<p class="quiet">There are no rows to measure.</p>'
    bars = "".join(
        _column(number, max(counts), low, high, cutoff)
        for number, (low, high) in zip(counts, pairwise(edges), strict=True)
    )
    return (
        f'<figure class="histogram"><div class="plot" role="img" aria-label="{_told(found)}">'
        f'<span class="most">{plural(max(counts), "row")}</span><div class="columns">{bars}</div>'
        f"{_cut_line(edges, cutoff)}</div>{_axis(edges)}"
        f"<figcaption>{_cut_note(edges, cutoff)}</figcaption></figure>"
        f"{_percentiles(found['percentiles'])}"
    )


def _column(number: int, most: int, low: float, high: float, cutoff: float | None) -> str:
    height = 100 * number / most if most else 0
    over = ' class="over"' if cutoff is not None and low >= cutoff else ""
    tip = f"{count(low)} to {count(high)} tokens: {plural(number, 'row')}"
    least = ";min-height:2px" if number else ""
    return f'<span title="{tip}"{over}><i style="height:{height:.2f}%{least}"></i></span>'


def _place(edges: Sequence[float], value: float) -> float:
    """Where a length is in the plot, 0 to 100: columns are equally wide."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if low <= value <= high:
            inside = (value - low) / (high - low) if high > low else 0
            return 100 * (index + inside) / (len(edges) - 1)
    return 0.0 if value < edges[0] else 100.0


def _cut_line(edges: Sequence[float], cutoff: float | None) -> str:
    if cutoff is None or cutoff > edges[-1]:
        return ""
    at = _place(edges, cutoff)
    side = "left" if at > 60 else "right"
    return (
        f'<span class="cutoff {side}" style="left:{at:.2f}%"><b>cut-off {count(cutoff)}</b></span>'
    )


def _cut_note(edges: Sequence[float], cutoff: float | None) -> str:
    if cutoff is None:
        return "Tokens per row. There is no cut-off."
    if cutoff > edges[-1]:
        return f"Tokens per row. The cut-off, {count(cutoff)}, is beyond the longest row."
    return f"Tokens per row. The dashed line is the cut-off, {count(cutoff)}."


def _axis(edges: Sequence[float]) -> str:
    step = max(1, round((len(edges) - 1) / 5))
    ticks = (
        f'<span style="left:{100 * index / (len(edges) - 1):.2f}%">{count(edges[index])}</span>'
        for index in range(0, len(edges), step)
    )
    return f'<div class="axis" aria-hidden="true">{"".join(ticks)}</div>'


def _told(found: Mapping[str, Any]) -> str:
    percentiles = found["percentiles"]
    half, most = percentiles.get("50"), percentiles.get("100")
    return safe(
        f"Histogram of tokens per row: half of the rows have at most {count(half)}, "
        f"the longest has {count(most)}, the cut-off is {count(found.get('cutoff'))}."
    )


def _percentiles(found: Mapping[str, float]) -> str:
    ordered = sorted(found.items(), key=lambda item: float(item[0]))
    heads = "".join(f'<th scope="col">{safe(name)}\u00a0%</th>' for name, _ in ordered)
    cells = "".join(f"<td>{count(value)}</td>" for _, value in ordered)
    return (
        '<div class="wide"><table class="percentiles"><thead><tr><th scope="col">of rows</th>'
        f'{heads}</tr></thead><tbody><tr><th scope="row">have at most (tokens)</th>{cells}</tr>'
        "</tbody></table></div>"
    )


def sources(found: Iterable[Mapping[str, Any]]) -> str:
    """The trained share of each source."""
    columns = ("Rows", "Dropped", "Tokens")
    heads = "".join(f'<th scope="col" class="number">{name}</th>' for name in columns)
    lines = "".join(_source(source) for source in found)
    if not lines:
        return '<p class="quiet">The sources are not known.</p>'
    return (
        '<div class="wide"><table class="sources"><thead><tr><th scope="col">Source</th>'
        f'<th scope="col">Trained</th>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _source(source: Mapping[str, Any]) -> str:
    rows, prepared = source.get("rows"), source.get("prepared")
    numbers = (
        count(rows) if prepared in {rows, None} else f"{count(prepared)} of {count(rows)}",
        count(source.get("dropped")),
        count(source.get("tokens")),
    )
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return (
        f'<tr><th scope="row">{safe(source["name"])}</th>'
        f'<td class="share">{_share(source)}</td>{cells}</tr>'
    )


def _share(source: Mapping[str, Any]) -> str:
    share = source["trained_tokens"] / source["tokens"] if source["tokens"] else 0.0
    return f"{bar(share)}<span>{percent(share)}</span>"


def sampled(shown: int, total: int) -> str:
    """Says how many of all rows are in the page."""
    if shown >= total:
        return f"All {plural(total, 'row')} are here."
    return f"{count(shown)} of {plural(total, 'row')} are here; the facts above count all of them."
