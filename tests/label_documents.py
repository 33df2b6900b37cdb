"""Documents as the label report makes them, for the tests of its page."""

import random
from collections.abc import Iterator
from typing import Any

STOP, START, BOS = 32000, 32001, 1
TEXT = (
    "the model reads a question and writes an answer that is short clear and true because people "
    "want to know which tokens are trained before they spend hours of computing time on data that "
    "was cut in half or masked in the wrong place while every log looks fine and loss falls"
)
WORDS = TEXT.split()
ODD = {
    31000: '</script><script>document.title="broken"</script>',
    31001: "<img src=x onerror=\"document.title='broken'\">",
    31002: "\u202eright to left\u202c",
    31003: " \U0001f642 caf\u00e9",
    31004: "\ufffd\ufffd",
    31005: "\u2028\x00\x1b[31m",
    31006: " \u0645\u0631\u062d\u0628\u0627",
    31007: "\ud83d",
    31009: " na\udcc3",
    31010: "\udcaf",
    31011: "ve\udcff",
    31008: " \"quoted\" & 'single' {{data}} --> \\",
}
VOCABULARY: dict[str, str] = {
    "1": "<s>",
    "10": "\n",
    "11": "user",
    "12": "assistant",
    "13": ".",
    str(STOP): "<|im_end|>",
    str(START): "<|im_start|>",
    **{str(100 + i): " " + word for i, word in enumerate(WORDS)},
    **{str(20000 + i): f" word{i}" for i in range(9000)},
    **{str(token): text for token, text in ODD.items()},
}


def turn(ids: list[int], role: str, words: list[int], row: dict[str, Any], stop: bool) -> None:
    """Adds one turn of a chat to a row."""
    start = len(ids)
    ids += [START, 12 if role == "assistant" else 11, 10]
    row["spans"].append([start, len(ids), "template"])
    at = len(ids)
    ids += [*words, STOP]
    row["spans"] += [[at, len(ids) - 1, role], [len(ids) - 1, len(ids), "stop"]]
    if role == "assistant":
        row["trained"].append([at, len(words) + stop])
    ids.append(10)


def chat(number: int, tokens: int, chance: random.Random, part: str = "") -> dict[str, Any]:
    """One row of about so many tokens, with a turn or two."""
    stop = number % 50 != 3
    row: dict[str, Any] = {
        "row": number,
        "part": part,
        "source": f"data/{'chat' if number % 3 else 'notes'}.jsonl:{number + 1}",
        "trained": [],
        "spans": [],
        "codes": [] if stop else ["FT505"],
    }
    ids = [BOS]
    for _ in range(1 + (tokens > 200)):
        left = (tokens - 2) // (1 + (tokens > 200)) - 11
        asked = max(2, int(left * chance.uniform(0.2, 0.5)))
        turn(ids, "user", _words(asked, chance), row, stop)
        turn(ids, "assistant", _words(max(2, left - asked), chance), row, stop)
    row["ids"] = ids
    return row


def _words(number: int, chance: random.Random) -> list[int]:
    common = [100 + int(len(WORDS) * chance.random() ** 1.7) for _ in range(number)]
    for place in range(5, number, 6):
        common[place] = 20000 + int(9000 * chance.random() ** 3)
    for place in range(11, number, 12):
        common[place] = 13
    for place in range(47, number, 48):
        common[place] = 10
    return common


def finding(code: str, level: str, rule: str, message: str, **more: Any) -> dict[str, Any]:
    """One finding with what each has."""
    return {
        "code": code,
        "level": level,
        "rule": rule,
        "message": message,
        "why": "",
        "fix": "",
        "count": 0,
        "of": 0,
        "rows": [],
        "examples": [],
        **more,
    }


def findings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two findings over the rows: stop tokens that are not trained, and long rows."""
    bad = [row for row in rows if "FT505" in row["codes"]]
    examples = [
        {
            "row": row["row"],
            "part": row["part"],
            "token": row["spans"][5][0],
            "before": " because people want to know\nwhich tokens are trained.",
            "offending": "<|im_end|>",
            "after": "\n",
        }
        for row in bad[:3]
    ]
    return [
        finding(
            "FT512",
            "warning",
            "rows-cut",
            "1.6 % of the rows are longer than 2,048 tokens and were cut",
            why="What is cut is the end of the answer and its stop token, so the model learns to "
            "break off.",
            fix="--set data.sequence_length=3072",
            count=80,
            of=5000,
            rows=[9_999_999],
        ),
        finding(
            "FT505",
            "error",
            "stop-untrained",
            f"The stop token is masked at the end of {len(bad)} assistant turns",
            why="A model that never learns to stop goes on until the limit of tokens: answers "
            "run into made-up questions.",
            fix="--set data.stop_tokens='[\"<|im_end|>\"]'",
            count=len(bad),
            of=len(rows),
            rows=[row["row"] for row in bad[:10]],
            examples=examples,
        ),
    ]


def lengths(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The histogram and the percentiles of the rows."""
    sizes = sorted(len(row["ids"]) for row in rows)
    edges = list(range(0, max(sizes) + 32, 32))
    counts = [0] * (len(edges) - 1)
    for size in sizes:
        counts[min(size // 32, len(counts) - 1)] += 1
    at = {str(p): sizes[min(len(sizes) - 1, len(sizes) * p // 100)] for p in (50, 90, 95, 99, 100)}
    return {"edges": edges, "counts": counts, "cutoff": 512, "percentiles": at}


def sources(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The sources of the rows."""
    for name in ("data/chat.jsonl", "data/notes.jsonl"):
        own = [row for row in rows if row["source"].startswith(name)]
        yield {
            "name": name,
            "rows": len(own) + 4,
            "prepared": len(own),
            "dropped": 4,
            "tokens": sum(len(row["ids"]) for row in own),
            "trained_tokens": sum(length for row in own for _, length in row["trained"]),
        }


def document(
    rows: int = 120, tokens: int = 300, *, pairs: bool = False, odd: bool = True
) -> dict[str, Any]:
    """A report with two findings over chats of about `tokens` tokens."""
    chance = random.Random(7)
    made = [
        chat(number, max(30, int(chance.gauss(tokens, tokens / 4))), chance, part)
        for number in range(rows)
        for part in (("chosen", "rejected") if pairs else ("",))
    ]
    if odd:
        made[1]["ids"][4 : 4 + len(ODD)] = list(ODD)
    sizes = sorted(len(row["ids"]) for row in made)
    total, trained = sum(sizes), sum(n for row in made for _, n in row["trained"])
    return {
        "version": 2,
        "recipe": "qwen-lora-chat",
        "backend": "axolotl",
        "release": "0.19.0",
        "made": "2026-11-22T12:00:00Z",
        "prepared": "/data/prepared/5f0c",
        "sequence_length": 512,
        "verdict": "error",
        "summary": {
            "rows": rows,
            "sequences": len(made),
            "tokens": total,
            "trained_tokens": trained,
            "trained_share": trained / total,
            "shortest": sizes[0],
            "median": sizes[len(sizes) // 2],
            "longest": sizes[-1],
            "traced_share": 1.0,
            "stop_tokens": ["<|im_end|>"],
            "stops_trained": 0.98,
            "bos": "<s>",
            "truncated": 80,
            "dropped": 8,
            "duplicates": 0,
        },
        "findings": findings(made),
        "lengths": lengths(made),
        "sources": list(sources(made)),
        "vocabulary": VOCABULARY,
        "special": [BOS, STOP, START],
        "rows": made,
        "rows_total": rows,
    }
