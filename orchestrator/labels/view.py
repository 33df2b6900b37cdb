"""The label report as text on a terminal and as a JSON document."""

from typing import Any

from orchestrator import ui
from orchestrator.labels.prepared import Prepared, Row
from orchestrator.labels.report import Report
from orchestrator.labels.terminal import row_text, row_title, summary_lines


def show(found: Report, prepared: Prepared, rows: list[int], *, ids: bool) -> None:
    """Rows with trained tokens bright and masked ones dim, the summary below."""
    from rich.rule import Rule
    from rich.text import Text

    for index in rows:
        for row in prepared.row(index):
            ui.say(Rule(row_title(row), align="left", style="cyan"))
            ui.say(row_text(row, prepared, ids=ids))
    legend = Text("trained", style="bold green")
    legend.append("  masked", style="dim")
    legend.append("  ")
    legend.append("trained stop or special token", style="bold black on green")
    ui.say(Rule("all rows", align="left", style="cyan"))
    ui.say(legend)
    width = max(len(name) for name, _ in summary_lines(found))
    for name, value in summary_lines(found):
        ui.say(f"{name:<{width}}  {value}")


def document(found: Report, prepared: Prepared, rows: list[int]) -> dict[str, Any]:
    """The JSON document: version, summary, findings, rows with tokens, ids and labels."""
    return {
        "version": 1,
        "prepared": str(prepared.dataset),
        "summary": found.as_dict(),
        "findings": [finding.as_dict() for finding in found.findings()],
        "rows": [_row(row, prepared) for index in rows for row in prepared.row(index)],
    }


def _row(row: Row, prepared: Prepared) -> dict[str, Any]:
    tokenizer = prepared.tokenizer
    return {
        "row": row.index,
        "part": row.part,
        "text": tokenizer.decode(row.ids, skip_special_tokens=False),
        "tokens": [tokenizer.id_to_token(token) for token in row.ids],
        "ids": row.ids,
        "labels": row.labels,
        "trained": row.trained,
    }
