"""What a source row says should be trained: its pieces of text, in order, each with its role.

Nothing here looks at a backend or a template: it is the measure that prepared labels are held
against.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.recipe.models import Recipe, Source, column
from orchestrator.recipe.sections.data import Role

ASSISTANT = "assistant"
USUAL_ROLES: dict[str, str] = {
    "human": "user",
    "user": "user",
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function": "tool",
    "function_call": ASSISTANT,
}
"""Names of roles that data commonly uses."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one role or field. `trained` is None where the data says it finer than by piece."""

    role: str
    text: str
    trained: bool | None


Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """A row: the pieces of each part (`""`, or `chosen` and `rejected`).

    `whole` is false where a template writes more than the pieces, tool calls for instance, so that
    what lies between them cannot be judged. `chat` makes the messages that a template takes.
    """

    parts: Mapping[str, tuple[Piece, ...]]
    whole: bool = True
    chat: Callable[[], Messages] | None = None


Reader = Callable[[Any], Truth | None]
"""Reads one row; None: it has nothing that can be compared."""


def reader(recipe: Recipe, source: Source) -> Reader | None:
    """How the rows of a source are read; None where only the backend's own handler knows."""
    match source.format:
        case "alpaca":
            return _Alpaca(recipe, source)
        case "messages" | "sharegpt":
            return _Chat(recipe, source)
        case "text" if recipe.training.stage == "sft":
            return _fields(source, (("text", True),))
        case "preference":
            return _Preference(recipe, source)
        case "kto":
            return _fields(source, (("prompt", False), ("completion", True)))
        case "pieces":
            return _pieces(source)
        case _:
            return None


def _guarded(read: Callable[[dict[str, Any]], Truth | None]) -> Reader:
    """Rows that are not what their format says are the data check's business, not ours."""

    def guarded(row: Any) -> Truth | None:
        try:
            truth = read(row)
            plain = truth is None or all(isinstance(text, str) for text in texts(truth))
            return truth if truth is None or plain else _spelled(truth)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            return None

    return guarded


def _spelled(truth: Truth) -> Truth | None:
    """A row with numbers as backends write them; None if a value is neither text nor number."""
    parts: dict[str, tuple[Piece, ...]] = {}
    for part, pieces in truth.parts.items():
        if all(type(piece.text) is str for piece in pieces):
            parts[part] = pieces
            continue
        if any(
            isinstance(p.text, bool) or not isinstance(p.text, (str, int, float)) for p in pieces
        ):
            return None
        parts[part] = tuple(Piece(p.role, str(p.text), p.trained) for p in pieces)
    return Truth(parts, truth.whole, truth.chat)


def _fields(source: Source, fields: tuple[tuple[Any, bool], ...]) -> Reader:
    names = [(role, column(source, role) or role, trained) for role, trained in fields]

    def read(row: dict[str, Any]) -> Truth:
        return Truth({"": tuple(Piece(role, row[name], trained) for role, name, trained in names)})

    return _guarded(read)


def _pieces(source: Source) -> Reader:
    """Segments with labels; neighbours of one label are one piece."""
    name = column(source, "messages") or "segments"

    def read(row: dict[str, Any]) -> Truth:
        joined: list[Piece] = []
        for segment in row[name]:
            label, text = bool(segment["label"]), str(segment["text"])
            if joined and joined[-1].trained == label:
                text = joined.pop().text + text
            joined.append(Piece("segment", text, label))
        return Truth({"": tuple(joined)})

    return _guarded(read)


class _Alpaca:
    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.every = recipe.data.train_on == "all"
        self.earlier = recipe.data.train_on != "last_assistant"
        self.name = {
            role: column(source, role)
            for role in ("system", "instruction", "input", "output", "history")
        }
        self.read = _guarded(self._read)

    def __call__(self, row: Any) -> Truth | None:
        return self.read(row)

    def _read(self, row: dict[str, Any]) -> Truth:
        name, pieces = self.name, list[Piece]()
        if name["system"]:
            pieces.append(Piece("system", row.get(name["system"]) or "", self.every))
        for asked, answered in (row.get(name["history"]) or []) if name["history"] else []:
            pieces.append(Piece("user", asked, self.every))
            pieces.append(Piece(ASSISTANT, answered, self.earlier))
        for role in ("instruction", "input"):
            key = name[role]
            if key:
                pieces.append(Piece(role, row.get(key) or "", self.every))
        pieces.append(Piece("output", row[name["output"] or "output"], True))
        return Truth({"": tuple(pieces)})


class _Messages:
    """Messages under the names that a source uses for their parts."""

    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.role_key = column(source, "role") or "role"
        self.content_key = column(source, "content") or "content"
        self.thinking_key = column(source, "thinking")
        self.train_key = column(source, "train")
        self.detail_key = column(source, "train_detail")
        self.system_key = column(source, "system")
        self.tools_key = column(source, "tools")
        self.roles = dict(USUAL_ROLES)
        for role, names in source.roles.items():
            for name in (names,) if isinstance(names, str) else names:
                self.roles[name] = _canonical(role)
        trained = source.train_roles or (ASSISTANT,)
        self.trained = {self.roles.get(role, role) for role in trained}
        self.every = recipe.data.train_on == "all"
        self.last_only = recipe.data.train_on == "last_assistant"

    def conversation(self, messages: Any, system: str = "") -> tuple[list[Piece], bool]:
        """The pieces, and whether they are all that a template writes."""
        pieces = [Piece("system", system, self.every)] if system else []
        whole = True
        for message in messages:
            role = self.roles.get(message[self.role_key], str(message[self.role_key]))
            content = message.get(self.content_key)
            if message.get("tool_calls") or message[self.role_key] == "function_call":
                whole = False
            if self.thinking_key and message.get(self.thinking_key):
                whole = False
            if isinstance(content, str):
                pieces.append(Piece(role, content, self._expected(role, message)))
            else:
                whole = False
        if self.last_only:
            pieces = _only_last(pieces)
        return pieces, whole

    def _expected(self, role: str, message: Mapping[str, Any]) -> bool | None:
        if self.detail_key and message.get(self.detail_key):
            return None
        if self.train_key and message.get(self.train_key) is not None:
            return bool(message[self.train_key])
        return self.every or role in self.trained

    def plain(self, messages: Any, system: str = "") -> Messages:
        """The messages as chat templates take them."""
        first = [{"role": "system", "content": system}] if system else []
        rest = [
            {
                "role": self.roles.get(message[self.role_key], str(message[self.role_key])),
                "content": message[self.content_key],
            }
            for message in messages
        ]
        return (*first, *rest)


class _Chat:
    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.key = column(source, "messages") or "messages"
        self.messages = _Messages(recipe, source)
        self.read = _guarded(self._read)

    def __call__(self, row: Any) -> Truth | None:
        return self.read(row)

    def _read(self, row: dict[str, Any]) -> Truth:
        of = self.messages
        system = (row.get(of.system_key) or "") if of.system_key else ""
        pieces, whole = of.conversation(row[self.key], system)
        if of.tools_key and row.get(of.tools_key):
            whole = False
        chat = partial(of.plain, row[self.key], system) if whole else None
        return Truth({"": tuple(pieces)}, whole, chat)


class _Preference:
    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.key = column(source, "messages") or "messages"
        self.answers = {part: column(source, part) or part for part in ("chosen", "rejected")}
        self.messages = _Messages(recipe, source)
        self.read = _guarded(self._read)

    def __call__(self, row: Any) -> Truth | None:
        return self.read(row)

    def _read(self, row: dict[str, Any]) -> Truth:
        prompt, whole = self.messages.conversation(row[self.key])
        masked = [Piece(piece.role, piece.text, False) for piece in prompt]
        parts = {
            part: (*masked, Piece(ASSISTANT, self._answer(row[name]), True))
            for part, name in self.answers.items()
        }
        return Truth(parts, whole)

    def _answer(self, value: Any) -> str:
        if isinstance(value, list):
            value = value[-1]
        return value if isinstance(value, str) else str(value[self.messages.content_key])


def _only_last(pieces: list[Piece]) -> list[Piece]:
    """Only the last answer is trained."""
    last = max((i for i, piece in enumerate(pieces) if piece.role == ASSISTANT), default=-1)
    return [
        Piece(piece.role, piece.text, piece.trained if i == last else False)
        for i, piece in enumerate(pieces)
    ]


def _canonical(role: Role) -> str:
    return ASSISTANT if role == "function" else role


def texts(truth: Truth) -> Iterator[str]:
    """Every text of a row."""
    for pieces in truth.parts.values():
        for piece in pieces:
            yield piece.text
