"""Sound rows, made by the project, and what of them should be trained.

The rows hold what trips a span finder: the same answer twice in a conversation, an answer that
repeats the question, one-character answers, code with newlines and tabs, runs of spaces, letters
outside of ASCII, composed and decomposed accents, a thought in tags. No content begins or ends
with whitespace: templates differ in whether they trim it, which is a mistake of its own.
"""

from random import Random
from typing import Any

Message = dict[str, Any]
Row = dict[str, Any]

NAMES = ("Ada", "Bo", "Chidi", "Dörte", "Élodie", "Фёдор", "Gül", "花子", "Ísak", "João")
THINGS = ("kettles", "maps", "lamps", "Äpfel", "ложки", "茶碗", "piñatas", "ropes", "bells", "nets")
PLACES = ("in the yard", "on  the   roof", "by the sea", "near Zürich", "at home", "in 東京")
SYSTEMS = (
    "Answer in one sentence.",
    "You are terse.\nNever apologise.",
    "Réponds poliment; code in\tfences.",
)
CODE = (
    "```python\ndef total(values):\n\tresult = 0\n    # two ways to indent\n\n"
    "    for value in values:\n        result += value\n    return result\n```"
)
SPECIAL = (
    ("Say it back: yes", "Say it back: yes"),  # the answer is the question
    ("Digit, please.", "4"),
    ("How is total written?", f"Like this:\n\n{CODE}\n\nThat is  all."),
    ("Smile!", "👩\u200d🔬 → ☺️ … ok"),
    ("Cafe\u0301 or café?", "Both: cafe\u0301, café."),
    ("List three.", "- one\n- two\n\n- three"),
)
THOUGHTS = (
    "<think>\nTwelve is even,\n\nso half of it is 6.\n</think>\n\nIt is 6.",
    "<think>\nA short one.\n</think>\n\nDone, без проблем.",
)
MANY = 44


def question(random: Random) -> tuple[str, str]:
    """A question and its answer."""
    name, thing, place = random.choice(NAMES), random.choice(THINGS), random.choice(PLACES)
    first, second = random.randint(2, 99), random.randint(2, 99)
    return (
        f"{name} has {first} {thing} {place} and gets {second} more. How many {thing} are there?",
        f"There are {first + second} {thing} {place}: {name} had {first}, and {second} came.",
    )


def turns(pairs: list[tuple[str, str]]) -> list[Message]:
    """Questions and answers as messages."""
    result: list[Message] = []
    for asked, answered in pairs:
        result += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    return result


def chats(*, system: bool = True, seed: int = 0) -> list[Row]:
    """Conversations of one to four answers; with `system` a quarter has a system prompt.

    Two answers, each the last of its row, begin with a thought.
    """
    random = Random(seed)
    rows: list[Row] = []
    for index in range(MANY):
        pairs = [question(random) for _ in range(index % 4 + 1)]
        if index % 5 == 2:
            pairs[0] = SPECIAL[index // 5 % len(SPECIAL)]
        if index % 11 == 7:
            pairs.append(pairs[0])  # asked and answered twice
        pairs = pairs[:4]
        if index in (6, 25):
            pairs[-1] = (pairs[-1][0] + " Think.", THOUGHTS[index % 2])
        messages = turns(pairs)
        if system and index % 4 == 1:
            messages.insert(0, {"role": "system", "content": SYSTEMS[index % 3]})
        rows.append({"messages": messages})
    return rows


def instructions(seed: int = 0) -> list[Row]:
    """Alpaca rows; every other one has an input."""
    random = Random(seed)
    rows: list[Row] = []
    for index in range(MANY):
        asked, answered = question(random)
        if index % 9 == 4:
            asked, answered = SPECIAL[index // 9 % len(SPECIAL)]
        extra = f"Row {index}.\nTwo  lines." if index % 2 else ""
        rows.append({"instruction": f"{index}: {asked}", "input": extra, "output": answered})
    return rows


def preferences(seed: int = 0) -> list[Row]:
    """Conversations with a better and a worse end."""
    random = Random(seed)
    rows: list[Row] = []
    for index in range(MANY):
        pairs = [question(random) for _ in range(index % 3 + 1)]
        messages = turns(pairs)
        chosen = messages.pop()
        worse = {"role": "assistant", "content": f"No idea, ask {random.choice(NAMES)} {index}."}
        rows.append({"messages": messages, "chosen": chosen, "rejected": worse})
    return rows


def sharegpt(rows: list[Row]) -> list[Row]:
    """The rows under ShareGPT's names."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [
        {
            "conversations": [
                {"from": names[message["role"]], "value": message["content"]}
                for message in row["messages"]
            ]
        }
        for row in rows
    ]


def texts(rows: list[Row]) -> list[Row]:
    """The rows as plain text."""
    return [{"text": "\n".join(m["content"] for m in row["messages"])} for row in rows]


def segments(rows: list[Row], bos: str, stop: str) -> list[Row]:
    """Alpaca rows as pieces of text that say which of them are trained."""
    return [
        {
            "segments": [
                {"label": False, "text": f"{bos}Q: {row['instruction']}\nA:"},
                {"label": True, "text": f" {row['output']}{stop}"},
            ]
        }
        for row in rows
    ]


def messages_of(row: Row) -> list[Message]:
    """The messages of a row, whatever they are called; alpaca fields and plain text as messages."""
    if "segments" in row:
        asked, answered = (segment["text"] for segment in row["segments"])
        answered = answered.rpartition("<|")[0]  # the stop is no content
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    if "text" in row:
        return [{"role": "assistant", "content": row["text"]}]
    if "completion" in row:
        asked, answered = row["prompt"], row["completion"]
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    if "output" in row:
        asked = [text for text in (row["instruction"], row["input"]) if text]
        answer = {"role": "assistant", "content": row["output"]}
        return [*({"role": "user", "content": text} for text in asked), answer]
    if "conversations" in row:
        roles = {"human": "user", "gpt": "assistant", "system": "system"}
        return [{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]]
    return list(row["messages"])


def contents(row: Row, part: str = "") -> list[tuple[str, str]]:
    """Role and text of everything in a row, in the order of the prompt. Texts of the role
    `assistant` should be trained, and nothing else: this is the truth, whatever a backend does.
    A message with `train` says it itself."""
    said = [
        (m["role"] if m.get("train", True) else "history", str(m["content"]))
        for m in messages_of(row)
        if m["content"]
    ]
    if part:  # of preference rows only the last answer is trained
        said = [("history" if role == "assistant" else role, text) for role, text in said]
        said.append(("assistant", str(row[part]["content"])))
    return said
