"""The label report for people: trained tokens bright, masked ones dim."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.labels.prepared import IGNORED, Prepared, Row
from orchestrator.labels.report import Report, special_ids

if TYPE_CHECKING:
    from rich.text import Text

TRAINED = "bold green"
STOP = "bold black on green"
MASKED = "dim"


def spans(row: Row, special: set[int]) -> Iterable[tuple[list[int], bool, bool]]:
    """Runs of ids that are shown alike: ids, trained, special."""
    current: list[int] = []
    kind: tuple[bool, bool] | None = None
    for token, label in zip(row.ids, row.labels, strict=True):
        now = (label != IGNORED, token in special)
        if current and (now != kind or now[1]):
            yield current, *(kind or now)
            current = []
        kind = now
        current.append(token)
    if current and kind:
        yield current, *kind


def row_text(row: Row, prepared: Prepared, *, ids: bool) -> "Text":
    """One sequence as coloured text; with `ids` each token as `token(label, id)`."""
    from rich.text import Text

    tokenizer = prepared.tokenizer
    special = special_ids(tokenizer)
    text = Text()
    if ids:
        for token, label in zip(row.ids, row.labels, strict=True):
            style = _style(label != IGNORED, token in special)
            text.append(f"{shown_token(tokenizer, token)}({label}, {token})", style=style)
            text.append(" ")
        return text
    for run, trained, is_special in spans(row, special):
        decoded = tokenizer.decode(run, skip_special_tokens=False)
        text.append(decoded.replace("\n", "\u23ce\n"), style=_style(trained, is_special))
    return text


def shown_token(tokenizer: Any, token: int) -> str:
    """A token's own text with visible spaces and newlines."""
    decoded = tokenizer.decode([token], skip_special_tokens=False)
    raw = tokenizer.id_to_token(token) or ""
    if raw.startswith("\u2581") and not decoded.startswith(" "):
        decoded = f" {decoded}"
    return str(decoded).replace("\n", "\u23ce").replace(" ", "\u00b7") or raw


def _style(trained: bool, is_special: bool) -> str:
    if trained:
        return STOP if is_special else TRAINED
    return MASKED


def row_title(row: Row) -> str:
    """The line above a sequence."""
    share = row.trained / len(row.ids) if row.ids else 0
    part = f" {row.part}" if row.part else ""
    return f"row {row.index}{part}: {len(row.ids)} tokens, {row.trained} trained ({share:.0%})"


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """The summary as names and values."""
    stops = ", ".join(report.stop_tokens) or "none"
    return [
        ("rows", f"{report.rows:,}"),
        ("tokens", f"{report.tokens:,}"),
        ("trained", f"{report.trained_tokens:,} ({report.trained_share:.1%})"),
        (
            "shortest / median / longest",
            f"{report.shortest} / {report.median:g} / {report.longest}",
        ),
        ("rows with nothing trained", str(report.empty_count)),
        ("stop tokens trained", f"{stops} (end {report.ends_with_stop:.1%} of the trained spans)"),
    ]
