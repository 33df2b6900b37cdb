"""The label report for people: trained tokens bright, masked ones dim, the verdict below."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from orchestrator import ui
from orchestrator.labels.judge import Report
from orchestrator.labels.picking import codes_by_row, places_of
from orchestrator.labels.prepared import IGNORED, Row
from orchestrator.labels.rules import Judged
from orchestrator.labels.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rich.text import Text

TRAINED = "bold green"
STOP = "bold black on green"
MASKED = "dim"
MASKED_STOP = "dim reverse"
OPEN, CLOSE = "\u27e6", "\u27e7"
"""Around trained text where there are no colours."""
HEAD, REST = 360, 240
"""Tokens at the start and at the end of a long row that are shown unless all are asked for."""
SPACES = re.compile(r" {2,}|^ +| +$")


def show(report: Report, rows: Sequence[int], *, ids: bool = False, whole: bool = True) -> None:
    """Rows, the facts over all rows, the verdict. `whole`: long rows are not shortened."""
    codes = codes_by_row(report)
    for index in rows:
        for row in report.prepared.row(index):
            _title(row, report, codes.get(index, ()))
            ui.say(row_text(row, report.prepared.vocabulary, ids=ids, whole=whole))
    _rule("all rows")
    ui.say(_legend())
    width = max(len(name) for name, _ in facts(report))
    for name, value in facts(report):
        ui.say(f"{name:<{width}}  {value}")
    _rule("verdict")
    show_verdict(report)


def show_verdict(report: Report) -> None:
    """Every finding with its reason, its way out and an example."""
    from rich.text import Text

    if not report.judged:
        ui.say(Text("\u2714 nothing wrong with these labels", style="green"))
        return
    for judged in report.judged:
        ui.say(_finding(judged))


def row_text(row: Row, vocabulary: Vocabulary, *, ids: bool = False, whole: bool = True) -> "Text":
    """One sequence as coloured text; with `ids` each token as `token(label, id)`."""
    from rich.text import Text

    text = Text()
    first, last = len(row.ids), len(row.ids)
    if not whole and len(row.ids) > HEAD + REST + 100:
        first, last = HEAD, len(row.ids) - REST
    for start, end in ((0, first), (last, len(row.ids))):
        if start == last and last > first:
            text.append(f"\n  \u2026 {last - first:,} tokens more \u2026\n", style="cyan")
        write = _with_ids if ids else _plain
        write(text, row, vocabulary, start, end)
    return text


def _with_ids(text: "Text", row: Row, vocabulary: Vocabulary, start: int, end: int) -> None:
    for token, label in zip(row.ids[start:end], row.labels[start:end], strict=True):
        style = _style(label != IGNORED, _control(vocabulary, token))
        text.append(f"{shown_token(vocabulary, token)}({label}, {token})", style=style)
        text.append(" ")


def _plain(text: "Text", row: Row, vocabulary: Vocabulary, start: int, end: int) -> None:
    marked = ui.screen.out.color_system is None
    before = False
    for run, trained, control in spans(row, vocabulary, start, end):
        if marked and trained != before:
            text.append(OPEN if trained else CLOSE)
        before = trained
        decoded = vocabulary.text(np.array(run))
        text.append(_visible(decoded), style=_style(trained, control))
    if marked and before:
        text.append(CLOSE)


def spans(
    row: Row, vocabulary: Vocabulary, start: int, end: int
) -> Iterable[tuple[list[int], bool, bool]]:
    """Runs of ids that are shown alike: ids, trained, control token."""
    current: list[int] = []
    kind: tuple[bool, bool] | None = None
    for token, label in zip(row.ids[start:end], row.labels[start:end], strict=True):
        now = (label != IGNORED, _control(vocabulary, token))
        if current and kind and (now != kind or now[1]):
            yield current, *kind
            current = []
        kind = now
        current.append(token)
    if current and kind:
        yield current, *kind


def _control(vocabulary: Vocabulary, token: int) -> bool:
    return 0 <= token < vocabulary.size and bool(vocabulary.control[token])


def _visible(text: str) -> str:
    """Line breaks and runs of spaces that would not be seen."""
    shown = SPACES.sub(lambda match: "\u00b7" * len(match.group()), text)
    return shown.replace("\r", "\u240d").replace("\t", "\u21e5\t").replace("\n", "\u23ce\n")


def shown_token(vocabulary: Vocabulary, token: int) -> str:
    """A token's own text with visible spaces and newlines."""
    text = vocabulary.text(np.array([token]))
    return text.replace("\n", "\u23ce").replace(" ", "\u00b7") or "\u2205"


def _style(trained: bool, control: bool) -> str:
    if trained:
        return STOP if control else TRAINED
    return MASKED_STOP if control else MASKED


def _title(row: Row, report: Report, codes: Sequence[str]) -> None:
    share = row.trained / len(row.ids) if row.ids else 0
    part = f" {row.part}" if row.part else ""
    text = f"row {row.index}{part}: {len(row.ids):,} tokens, {row.trained:,} trained ({share:.0%})"
    places = [
        report.place(of, at)
        for of in report.gathered.parts
        if of.part == row.part
        for at in places_of(of, row.index)
    ]
    known = [place for place in places if place]
    if known:
        text += f"  {known[0].rpartition('/')[2]}" + (
            f" and {len(places) - 1} more" if len(places) > 1 else ""
        )
    _rule(text + "".join(f"  {code}" for code in codes))


def _rule(title: str) -> None:
    from rich.rule import Rule
    from rich.text import Text

    ui.say(Rule(Text(title), align="left", style="cyan"))


def _legend() -> "Text":
    from rich.text import Text

    if ui.screen.out.color_system is None:
        return Text(f"{OPEN}trained{CLOSE}  masked")
    text = Text()
    text.append("trained", style=TRAINED)
    for word, style in (
        ("masked", MASKED), ("trained stop token", STOP), ("masked control token", MASKED_STOP)
    ):  # fmt: skip
        text.append("  ")
        text.append(word, style=style)
    return text


def _finding(judged: Judged) -> "Text":
    from rich.text import Text

    finding = judged.finding
    text = Text()
    text.append(f"{finding.level}[{finding.code}]", style=ui.STYLES[finding.level])
    text.append(f" {judged.rule}: {finding.message}\n")
    if judged.rows:
        more = ", ..." if judged.count > len(judged.rows) else ""
        text.append(f"    rows: {', '.join(str(row) for row in judged.rows)}{more}\n", style="dim")
    for example in judged.examples[:1]:
        if example["offending"]:
            text.append("    ", style="dim")
            text.append(_line(example["before"][-40:]), style="dim")
            text.append(f"{OPEN}{_line(example['offending'])}{CLOSE}", style="bold red")
            text.append(_line(example["after"][:30]) + "\n", style="dim")
    text.append(f"    why: {judged.why}\n", style="dim")
    text.append(f"    fix: {finding.fix}")
    return text


def _line(text: str) -> str:
    return text.replace("\n", "\u23ce").replace("\r", "\u240d")


def facts(report: Report) -> list[tuple[str, str]]:
    """The facts over all rows as names and values."""
    of = report.facts
    stops = ", ".join(report.stop_tokens) or "none"
    every = sum(of.stops.values()) + sum(of.stops_untrained.values()) + of.stop_missing
    lines = [
        ("rows", f"{of.rows:,}" + (f" ({of.sequences:,} sequences)"
                                   if of.sequences != of.rows else "")),
        ("tokens", f"{of.tokens:,}"),
        ("trained", f"{of.trained_tokens:,} ({of.trained_share:.1%})"),
        ("shortest / median / longest", f"{of.shortest} / {of.median:g} / {of.longest}"
                                        f" of at most {of.sequence_length}"),
        ("stop tokens trained", f"{stops} (end {of.ends_with_stop:.1%} of {every:,} answers)"),
    ]  # fmt: skip
    if of.traceable:
        share = of.traced / of.sequences if of.sequences else 0
        lines.append(("held against the source", f"{share:.1%} of the rows"))
    else:
        lines.append(("held against the source", "no: the source rows are not on this machine"))
    if of.compared or of.refused:
        refused = f", {of.refused} that it refuses" if of.refused else ""
        lines.append(("held against the template", f"{of.compared} conversations{refused}"))
    if of.starts_with_bos:
        lines.append(("begin with BOS", f"{of.starts_with_bos:,}"))
    for source in of.sources if len(of.sources) > 1 else []:
        trained = source.trained_tokens / source.tokens if source.tokens else 0
        lines.append((source.name, f"{source.prepared:,} of {source.rows:,} rows, "
                                   f"{source.tokens:,} tokens, {trained:.1%} trained"))  # fmt: skip
    return lines
