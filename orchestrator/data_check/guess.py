"""What a local data file looks like: the format and columns that a new recipe should say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.data_check.reading import READERS, data_files
from orchestrator.data_check.tally import Tally

LOOKED_AT = 50
TEXTS = {
    "instruction": ("instruction", "prompt", "question", "query", "problem"),
    "output": ("output", "response", "answer", "completion", "solution", "target"),
}
ROLE_KEYS = {"role": "content", "from": "value", "speaker": "text"}
ROLES = {
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "bot", "model", "agent", "chatgpt"),
    "tool": ("tool", "observation", "function_response"),
    "system": ("system",),
}


@dataclass(frozen=True, slots=True)
class Guess:
    """Format, renamed columns and roles of a data set."""

    format: str
    columns: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)


def first_rows(path: Path) -> list[dict[str, Any]]:
    """The first rows of a data file or folder; what cannot be read is left out."""
    for file in data_files(path):
        reader = READERS.get(file.suffix.lower())
        if reader:
            rows = islice(reader(file, Tally(file), lambda _: None), LOOKED_AT)
            return [row for row in rows if isinstance(row, dict)]
    return []


def guess(rows: list[dict[str, Any]]) -> Guess | None:
    """The format of these rows, or None if none is known by its looks."""
    if not rows:
        return None
    row = rows[0]
    conversation = _conversation(rows)
    if {"chosen", "rejected"} <= set(row):
        return _renamed("preference", conversation) if conversation else None
    if conversation:
        return conversation
    if isinstance(row.get("label"), bool) and {"prompt", "completion"} <= set(row):
        return Guess("kto")
    texts = [name for name, value in row.items() if isinstance(value, str)]
    found = {role: next((n for n in names if n in texts), "") for role, names in TEXTS.items()}
    if all(found.values()):
        columns = {role: name for role, name in found.items() if role != name}
        return Guess("alpaca", columns)
    if len(texts) == 1 or "text" in texts:
        name = "text" if "text" in texts else texts[0]
        return Guess("text", {} if name == "text" else {"text": name})
    return None


def _renamed(format: str, found: Guess) -> Guess:
    return Guess(format, found.columns, found.roles)


def _conversation(rows: list[dict[str, Any]]) -> Guess | None:
    for name, value in rows[0].items():
        if name in ("chosen", "rejected") or not isinstance(value, list) or not value:
            continue
        message = value[0]
        if not isinstance(message, dict):
            continue
        for role, content in ROLE_KEYS.items():
            if role in message and content in message:
                seen = {m[role] for row in rows for m in row.get(name) or [] if role in m}
                return _messages(name, role, content, {s for s in seen if isinstance(s, str)})
    return None


def _messages(name: str, role: str, content: str, seen: set[str]) -> Guess:
    sharegpt = (role, content) == ("from", "value") and seen <= {
        "human", "gpt", "system", "observation", "function_call",
    }  # fmt: skip
    usual: Mapping[str, str] = (
        {"messages": "conversations", "role": "from", "content": "value"}
        if sharegpt
        else {"messages": "messages", "role": "role", "content": "content"}
    )
    given = {"messages": name, "role": role, "content": content}
    columns = {key: value for key, value in given.items() if usual[key] != value}
    roles = {} if sharegpt else _roles(seen)
    return Guess("sharegpt" if sharegpt else "messages", columns, roles)


def _roles(seen: set[str]) -> dict[str, str]:
    found = {}
    for ours, names in ROLES.items():
        theirs = next((name for name in names if name in seen), ours)
        if theirs != ours:
            found[ours] = theirs
    return found
