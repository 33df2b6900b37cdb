"""The label report: facts over all rows, and whether they forbid training."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.findings import Finding
from orchestrator.labels.prepared import IGNORED, Prepared

SHOWN = 10
TAIL = 4
"""How many tokens before the end of a trained span may hold its stop token: LLaMA-Factory's
templates train a separator behind it (llamafactory 0.9.5: `</s>\\n\\n` for alpaca)."""


@dataclass(frozen=True, slots=True)
class Report:
    """Facts about a prepared data set. Lengths are in tokens, shares between 0 and 1."""

    rows: int
    sequences: int
    tokens: int
    trained_tokens: int
    shortest: int
    median: float
    longest: int
    empty_rows: tuple[int, ...]
    empty_count: int
    stop_ids: tuple[int, ...]
    stop_tokens: tuple[str, ...]
    ends_with_stop: float

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "trained_share": round(self.trained_share, 6)}

    def findings(self) -> list[Finding]:
        """What forbids training (`FT501`, `FT502`)."""
        if not self.rows:
            return [
                Finding(
                    "FT501",
                    "error",
                    "the prepared data set has no rows",
                    fix="is every row longer than data.sequence_length?",
                )
            ]
        if not self.trained_tokens:
            return [
                Finding(
                    "FT501",
                    "error",
                    f"not one token of {self.rows} rows would be trained",
                    fix="check data.train_on, data.roles and the chat template; is every "
                    "prompt longer than data.sequence_length?",
                )
            ]
        if self.empty_count:
            rows = ", ".join(str(row) for row in self.empty_rows)
            more = ", ..." if self.empty_count > len(self.empty_rows) else ""
            return [
                Finding(
                    "FT502",
                    "error",
                    f"{self.empty_count} of {self.rows} rows have no trained "
                    f"token (rows {rows}{more})",
                    fix="look at them with `ft inspect-tokens "
                    f"RECIPE --rows {self.empty_rows[0]}`; remove them or raise "
                    "data.sequence_length",
                )
            ]
        return []


def report(prepared: Prepared) -> Report:
    """The report of a prepared data set."""
    lengths: list[Any] = []
    empty: set[int] = set()
    tokens = trained_tokens = ended = spans = 0
    special = special_ids(prepared.tokenizer)
    stops: dict[int, int] = {}
    for part in prepared.columns():
        trained = part.trained
        lengths.append(part.lengths)
        tokens += len(part.ids)
        trained_tokens += int(trained.sum())
        empty |= {int(row) for row in np.flatnonzero(trained == 0)}
        found, of = _stops(part.ids, part.labels, part.offsets, special)
        for token, count in found.items():
            stops[token] = stops.get(token, 0) + count
        ended, spans = ended + sum(found.values()), spans + of
    every = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
    usual = sorted(token for token, count in stops.items() if count * 20 >= max(spans, 1))
    return Report(
        rows=prepared.rows,
        sequences=len(every),
        tokens=tokens,
        trained_tokens=trained_tokens,
        shortest=int(every.min()) if len(every) else 0,
        median=float(np.median(every)) if len(every) else 0.0,
        longest=int(every.max()) if len(every) else 0,
        empty_rows=tuple(sorted(empty)[:SHOWN]),
        empty_count=len(empty),
        stop_ids=tuple(usual),
        stop_tokens=tuple(prepared.tokenizer.id_to_token(token) or "" for token in usual),
        ends_with_stop=round(ended / spans, 6) if spans else 0.0,
    )


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokenizer's special tokens."""
    return {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}


def _stops(ids: Any, labels: Any, offsets: Any, special: set[int]) -> tuple[dict[int, int], int]:
    """Special tokens near the end of trained spans with their counts, and the number of spans."""
    trained = labels != IGNORED
    if not len(ids):
        return {}, 0
    starts = np.zeros(len(ids) + 1, dtype=bool)
    starts[offsets[:-1][np.diff(offsets) > 0]] = True
    ends = trained & (np.concatenate((~trained[1:], [True])) | starts[1:])
    ends[-1] = trained[-1]
    positions = np.flatnonzero(ends)
    is_special = np.isin(ids, np.fromiter(special, dtype=np.int64, count=len(special)))
    counts: dict[int, int] = {}
    open_ = positions
    for back in range(TAIL):
        at = open_ - back
        inside = (at >= 0) & trained[np.maximum(at, 0)]
        hit = inside & is_special[np.maximum(at, 0)]
        values, numbers = np.unique(ids[np.maximum(at, 0)][hit], return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(number)
        first = starts[np.maximum(at, 0)]
        open_ = open_[inside & ~hit & ~first]
    return counts, len(positions)


def pick_rows(spec: str, prepared: Prepared) -> list[int]:
    """Row numbers from `0,5,longest`: numbers, ranges `3-6`, shortest, median, longest, least,
    most (trained share).

    Raises:
        ValueError: a word that is none of these, or a row that is not there.
    """
    part = next(prepared.columns(), None)
    if part is None or not prepared.rows:
        return []
    order = np.argsort(part.lengths, kind="stable")
    share = np.argsort(part.trained / np.maximum(part.lengths, 1), kind="stable")
    named = {
        "shortest": order[0],
        "median": order[len(order) // 2],
        "longest": order[-1],
        "least": share[0],
        "most": share[-1],
    }
    picked: list[int] = []
    for word in (word.strip() for word in spec.split(",") if word.strip()):
        first, dash, last = word.partition("-")
        if word in named:
            picked.append(int(named[word]))
        elif first.isdigit() and (not dash or last.isdigit()):
            picked.extend(range(int(first), int(last or first) + 1))
        else:
            raise ValueError(f"{word!r} is no row: use numbers, ranges, {', '.join(named)}")
    if picked and max(picked) >= prepared.rows:
        raise ValueError(f"there is no row {max(picked)}; the data has {prepared.rows}")
    return list(dict.fromkeys(picked))
