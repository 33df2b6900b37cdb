"""What a conversation must be: messages with a role and a content, in an order that is accepted.

LLaMA-Factory 0.9.5 leaves every row out, with a warning only, whose turns do not alternate between
(user, tool) and (assistant, function call) or that does not end with an answer. axolotl 0.19.0
takes any order that its template takes; Gemma's and Mistral's templates raise.
"""

from itertools import pairwise
from typing import Any, Final

from orchestrator.data_check.tally import Tally
from orchestrator.findings import Level
from orchestrator.recipe.models import Recipe, Source, column
from orchestrator.recipe.sections.data import Role

STRICT_TEMPLATES: Final = ("gemma", "mistral")
"""Templates whose names start so raise an error when roles do not alternate."""

ASKS, ANSWERS, SYSTEM, TOOL = 0, 1, 2, 3


class Conversation:
    """The rules for the messages of one source."""

    def __init__(
        self, recipe: Recipe, source: Source, tally: Tally, *, prompt: bool = False
    ) -> None:
        sharegpt = source.format == "sharegpt"
        self.llamafactory = recipe.backend == "llamafactory"
        template = source.chat_template or recipe.data.chat_template
        strict = self.llamafactory or template.startswith(STRICT_TEMPLATES)
        self.who = "llamafactory" if self.llamafactory else f"template {template!r}"
        self.order_level: Level = "error" if strict else "warning"
        self.tally = tally
        self.prompt = prompt
        self.role_key = column(source, "role") or "role"
        self.content_key = column(source, "content") or "content"
        self.assistants = self._names(source, "assistant", "gpt" if sharegpt else "assistant")
        self.assistant = self.assistants[0]
        user = self._names(source, "user", "human" if sharegpt else "user")
        tool = self._names(source, "tool", "observation" if sharegpt else "tool")
        system = self._names(source, "system", "system")
        function = self._names(source, "function", "function_call")
        self.accepted: set[tuple[int, ...]] = set()
        self.sides = {
            **dict.fromkeys((*user, *tool), ASKS),
            **dict.fromkeys(self.assistants, ANSWERS),
            **dict.fromkeys(system, SYSTEM),
        }
        if self.llamafactory:
            self.sides |= dict.fromkeys(function, ANSWERS)
        else:
            self.sides |= dict.fromkeys((*tool, "tool", "observation", "ipython"), TOOL)
            self.sides.setdefault("developer", SYSTEM)

    def _names(self, source: Source, role: Role, usual: str) -> tuple[str, ...]:
        """What the data calls a role; LLaMA-Factory knows one name."""
        given = source.roles.get(role, usual)
        names = (given,) if isinstance(given, str) else given
        return names[:1] if self.llamafactory else names

    def check(self, messages: Any, otherwise: str) -> None:
        """One row's messages; `otherwise` is what to say when they are no list."""
        if self._sound(messages):
            return
        if not isinstance(messages, list):
            self.tally.add("FT305", otherwise)
            return
        sides: list[int] = []
        answered = False
        for message in messages:
            content = self._content(message)
            if content is False:
                return
            role = message[self.role_key]
            side = self.sides.get(role) if isinstance(role, str) else None
            if side is None:
                self._unknown(role)
                continue
            sides.append(side)
            if role in self.assistants:
                answered = self._answered(content, message) or answered
        if not self.prompt and not answered:
            self.tally.add(
                "FT306",
                f"no message of the role {self.assistant!r}: nothing to learn",
                "roles: {assistant: ...} names it",
            )
        if sides:
            self._order(sides)

    def _sound(self, messages: Any) -> bool:
        """Whether a row is as nearly all are; the slow rules then need not look at it."""
        sides: list[int] = []
        answered = self.prompt
        role_key, content_key, known = self.role_key, self.content_key, self.sides
        try:
            for message in messages:
                role, content = message[role_key], message[content_key]
                sides.append(known[role])
                if role in self.assistants:
                    answered = True
                    if not content.strip():
                        return False
                elif type(content) is not str:
                    return False
        except (TypeError, KeyError, AttributeError):
            return False
        return answered and tuple(sides) in self.accepted

    def answer(self, value: Any, name: str) -> None:
        """A chosen or rejected answer of a preference row."""
        if isinstance(value, list) and not self.llamafactory and value:
            value = value[-1]
        if isinstance(value, (str, list)) and (self.llamafactory or isinstance(value, list)):
            kind = "text" if isinstance(value, str) else "a list"
            self.tally.add(
                "FT305",
                f"{name} must be one message with {self.role_key!r} and {self.content_key!r}, "
                f"not {kind}",
            )
            return
        content = value if isinstance(value, str) else self._content(value)
        if isinstance(content, str) and not content.strip():
            self.tally.add("FT306", f"{name} is empty: nothing to learn")
        if isinstance(value, dict) and content is not False:
            role = value[self.role_key]
            if self.llamafactory and self.sides.get(str(role)) != ANSWERS:
                self.tally.add(
                    "FT307", f"{name} must be of the role {self.assistant!r}: llamafactory "
                    "leaves other rows out"
                )  # fmt: skip

    def _content(self, message: Any) -> Any:
        """A message's content; False when it is no message."""
        if (
            not isinstance(message, dict)
            or self.role_key not in message
            or self.content_key not in message
        ):
            self.tally.add(
                "FT304",
                f"a message needs {self.role_key!r} and {self.content_key!r}",
                "columns: {role: ..., content: ...} name them",
            )
            return False
        content = message[self.content_key]
        if not isinstance(content, str) and not self._other_content(content, message):
            self.tally.add("FT305", f"{self.content_key!r} of a message must be text")
        return content

    def _other_content(self, content: Any, message: dict[str, Any]) -> bool:
        """axolotl hands content to the template: parts, or none beside tool calls."""
        if self.llamafactory:
            return False
        parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        return parts or (content is None and bool(message.get("tool_calls")))

    def _answered(self, content: Any, message: dict[str, Any]) -> bool:
        if isinstance(content, str) and not content.strip() and not message.get("tool_calls"):
            self.tally.add("FT306", "an assistant message is empty")
            return False
        return True

    def _unknown(self, role: Any) -> None:
        known = ", ".join(sorted(self.sides))
        loss = "llamafactory leaves such rows out" if self.llamafactory else "the template decides"
        self.tally.add(
            "FT308",
            f"the role {str(role)[:40]!r} is unknown ({loss}); known: {known}",
            f"roles: {{assistant: {str(role)[:40]}}}, or whichever it is",
            "error" if self.llamafactory else "warning",
        )

    def _order(self, sides: list[int]) -> None:
        """Turns alternate, the system prompt comes first, an answer last.

        Several tools may answer one call; llamafactory takes no two of them in a row.
        """
        given = tuple(sides)
        if TOOL in sides:
            pairs = zip([SYSTEM, *sides], sides, strict=False)
            sides = [now for before, now in pairs if (before, now) != (TOOL, TOOL)]
            sides = [ASKS if side == TOOL else side for side in sides]
        rest = sides[1:] if sides[0] == SYSTEM else sides
        problem = ""
        if SYSTEM in rest:
            problem = "a system message that is not the first"
        elif rest and rest[0] == ANSWERS:
            problem = "a conversation that starts with an answer"
        elif any(one == other for one, other in pairwise(rest)):
            problem = "two turns of the same side in a row"
        elif self.llamafactory and rest and rest[-1] == (ANSWERS if self.prompt else ASKS):
            problem = (
                "a prompt that ends with an answer"
                if self.prompt
                else "a conversation that ends without an answer"
            )
        if not problem:
            self.accepted.add(given)
            return
        if self.llamafactory:
            message = f"{problem}: llamafactory leaves such rows out"
        elif self.order_level == "error":
            message = f"{problem}: {self.who} refuses it"
        else:
            message = f"{problem}: some templates refuse it"
        self.tally.add("FT307", message, "roles must alternate", self.order_level)
