"""Token ids and labels that axolotl gives for the same rows, made inside LLaMA-Factory.

LLaMA-Factory tokenizes a conversation slot by slot, trains what stands behind the stop token, keeps
whitespace that the model's template trims, and joins instruction and input by a newline
(llamafactory 0.9.5). Here the whole text is tokenized at once, as the model's own template would
be, and the loss is on the answer and its stop token. The objects below take the place of its
templates and of its reader of instruction rows, in one process, while it tokenizes.
"""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from .errors import ProbeError

Pairs = list[tuple[list[int], list[int]]]

BRACES, HIDDEN = "{{", "\ue0f7\ue0f8"
"""LLaMA-Factory fills `{{idx}}` in texts of users too; the braces are hidden from it meanwhile."""
MARK = "\ue0f9"
EMPTY = "\ue0fa"
"""A system prompt that is there and empty; LLaMA-Factory takes an empty one for none."""
REACH = 3
"""How far behind an answer its stop token may be: axolotl looks as far."""
SENTINELS = ("[[dummy_message]]", "zzdummymessagezz")
CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
"""In every object, because `datasets` finds its cached rows by what an object holds."""


@contextmanager
def common_tokens(options: Mapping[str, Any] | None) -> Iterator[None]:
    """Read rows as `options` say, and put LLaMA-Factory's own things back at the end.

    It writes a default system prompt into its templates, which are there for the next task too.
    """
    from llamafactory.data import template
    from llamafactory.data.converter import DATASET_CONVERTERS as converters

    templates = {name: copy.copy(one) for name, one in template.TEMPLATES.items()}
    parse = template.parse_template
    if options and options.get("own"):
        template.parse_template = partial(parsed, parse, templates["empty"])
    readers = dict(converters)
    if options and options.get("prompt"):
        converters["alpaca"] = partial(InstructionRows, options["prompt"], readers["alpaca"])
    if options:
        converters["sharegpt"] = partial(ChatRows, readers["sharegpt"])
    try:
        yield
    finally:
        template.parse_template = parse
        converters.update(readers)
        template.TEMPLATES.update(templates)


def common_template(template: Any, tokenizer: Any, options: Mapping[str, Any] | None) -> Any:
    """The template that tokenizes as `options` say; LLaMA-Factory's own where that cannot be."""
    from llamafactory.data.template import ReasoningTemplate

    plain = type(template.mm_plugin).__name__ == "BasePlugin"
    if not options or not tokenizer.is_fast or not plain or template.efficient_eos:
        return template
    if options.get("prompt"):
        return InstructionTokens(template, options)
    if options.get("own") and tokenizer.chat_template:
        return OwnTemplateTokens(template, options)
    if isinstance(template, ReasoningTemplate):
        return template
    return SlotTokens(template, options)


def parsed(parse: Any, stand_in: Any, tokenizer: Any) -> Any:
    """The tokenizer's template as LLaMA-Factory takes it apart, or a stand-in where it fails.

    It fails with templates that write no system prompt by itself, as Mistral's and Llama 2's. What
    is tokenized comes from the template as a whole (`OwnTemplateTokens`), so nothing is lost.
    """
    try:
        return parse(tokenizer)
    except ValueError:
        made = copy.copy(stand_in)
        made.stands_in = True
        return made


class Tokens:
    """What LLaMA-Factory's processors ask a template for."""

    efficient_eos = False

    def __init__(self, template: Any, options: Mapping[str, Any]) -> None:
        self.template = template
        self.most: int | None = options.get("cut")
        self.mm_plugin = template.mm_plugin
        self.preserve_thinking = template.preserve_thinking
        self.code = CODE

    def get_stop_token_ids(self, tokenizer: Any) -> list[int]:
        """Ids that end a turn."""
        ids: list[int] = self.template.get_stop_token_ids(tokenizer)
        return ids


class InstructionTokens(Tokens):
    """A prompt and its answer, each tokenized by itself: the prompt with what the tokenizer puts
    around a text, the answer with the end of text."""

    def encode_oneturn(
        self, tokenizer: Any, messages: Sequence[Mapping[str, str]], *_: Any
    ) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the answer."""
        prompt: list[int] = tokenizer(messages[0]["content"])["input_ids"]
        answer: list[int] = list(tokenizer(messages[-1]["content"])["input_ids"])
        if not messages[-1]["content"]:
            return list(prompt), []
        if answer and answer[0] == tokenizer.bos_token_id:
            answer = answer[1:]
        if not answer or answer[-1] != tokenizer.eos_token_id:
            answer.append(tokenizer.eos_token_id)
        return list(prompt), answer

    def encode_multiturn(
        self, tokenizer: Any, messages: Sequence[Mapping[str, str]], *_: Any
    ) -> Pairs:
        """The one turn."""
        return cut([self.encode_oneturn(tokenizer, messages)], self.most)


class ChatTokens(Tokens, ABC):
    """A conversation whose text is tokenized at once. `last_only`: train the last answer only."""

    def __init__(self, template: Any, options: Mapping[str, Any]) -> None:
        super().__init__(template, options)
        self.trim = frozenset(options.get("trim") or ())
        self.last_only = bool(options.get("last_only"))

    @abstractmethod
    def rendered(
        self, tokenizer: Any, messages: Sequence[Mapping[str, str]], system: str, tools: str
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and where in it the answers are."""

    def encode_multiturn(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, str]],
        system: str | None = None,
        tools: str | None = None,
        discarding_history_cot: bool = False,
    ) -> Pairs:
        """Runs of masked and of trained ids, in turn."""
        text, spans = self.rendered(tokenizer, messages, system or "", tools or "")
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        stops = set(self.get_stop_token_ids(tokenizer))
        trained = [False] * len(ids)
        for start, end in spans[-1:] if self.last_only else spans:
            touched = [i for i, (a, b) in enumerate(offsets) if b > start and a < end]
            if not touched:
                continue
            behind = range(touched[-1] + 1, min(touched[-1] + 2 + REACH, len(ids)))
            stop = next((i for i in behind if ids[i] in stops), None)
            for i in (*touched, *(() if stop is None else (stop,))):
                trained[i] = True
        return one_pair(ids, trained) if self.last_only else cut(pairs(ids, trained), self.most)

    def encode_oneturn(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, str]],
        system: str | None = None,
        tools: str | None = None,
    ) -> tuple[list[int], list[int]]:
        """Ids of everything before the last answer, and of that answer with its stop token."""
        system = self.shorn("system", system or "").replace(EMPTY, "")
        prompt, answer = self.template.encode_oneturn(
            tokenizer, self.trimmed(messages), system, tools
        )
        return prompt, self.stopped(tokenizer, answer)

    def stopped(self, tokenizer: Any, answer: Sequence[int]) -> list[int]:
        """An answer up to its last stop token."""
        stops = set(self.get_stop_token_ids(tokenizer))
        last = max((i for i, token in enumerate(answer) if token in stops), default=len(answer))
        return list(answer[: last + 1])

    def trimmed(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The messages without the whitespace that the model's template takes away."""
        return [{**m, "content": self.shorn(m["role"], m["content"])} for m in messages]

    def shorn(self, role: str, content: str) -> str:
        """One content; a system prompt of nothing but whitespace stays one."""
        if role not in self.trim:
            return content
        return content.strip() or (EMPTY if role == "system" and content else "")


class SlotTokens(ChatTokens):
    """The text that LLaMA-Factory's template of that name makes."""

    def rendered(
        self, tokenizer: Any, messages: Sequence[Mapping[str, str]], system: str, tools: str
    ) -> tuple[str, list[tuple[int, int]]]:
        """See the base class."""
        clean = [
            {**m, "content": m["content"].replace(BRACES, HIDDEN)} for m in self.trimmed(messages)
        ]
        writer = Writer(tokenizer)
        pieces = self.template._encode(writer, clean, self.shorn("system", system), tools)
        lead = writer.text(
            self.template._convert_elements_to_ids(
                writer, self.template.format_assistant.apply(content=MARK)
            )
        ).index(MARK)
        text, spans = "", []
        for piece, message in zip(pieces, clean, strict=True):
            written = writer.text(piece)
            if message["role"] == "assistant":
                start = len(text) + lead
                spans.append((start, start + len(message["content"].replace(HIDDEN, BRACES))))
            elif message["role"] == "function":
                spans.append((len(text), len(text) + len(written)))
            text += written
        return text, spans


class OwnTemplateTokens(ChatTokens):
    """The text that the tokenizer's own template makes."""

    def __init__(self, template: Any, options: Mapping[str, Any]) -> None:
        super().__init__(template, options)
        self.default_system = options.get("default_system") or ""

    def encode_multiturn(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, str]],
        system: str | None = None,
        tools: str | None = None,
        discarding_history_cot: bool = False,
    ) -> Pairs:
        """Conversations with tools are left to LLaMA-Factory, which has them as texts."""
        if not tools and all(m["role"] in ("user", "assistant") for m in messages):
            return super().encode_multiturn(tokenizer, messages, system)
        if getattr(self.template, "stands_in", False):
            raise ProbeError(
                "LLaMA-Factory cannot take this model's chat template apart, as tools need it.",
                hint="Name one of its templates in data.chat_template, or use axolotl.",
            )
        found: Pairs = self.template.encode_multiturn(
            tokenizer, messages, system, tools, discarding_history_cot
        )
        return found

    def encode_oneturn(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, str]],
        system: str | None = None,
        tools: str | None = None,
    ) -> tuple[list[int], list[int]]:
        """See the base class."""
        if not getattr(self.template, "stands_in", False):
            return super().encode_oneturn(tokenizer, messages, system, tools)
        text, spans = self.rendered(tokenizer, messages, system or "", tools or "")
        turns = self.turns(messages[:-1], system or "")
        asked: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        cut = len(asked) if text.startswith(asked) else spans[-1][0]
        prompt, answer = (
            tokenizer(part, add_special_tokens=False)["input_ids"]
            for part in (text[:cut], text[cut:])
        )
        return list(prompt), self.stopped(tokenizer, answer)

    def rendered(
        self, tokenizer: Any, messages: Sequence[Mapping[str, str]], system: str, tools: str
    ) -> tuple[str, list[tuple[int, int]]]:
        """See the base class. Answers are found as axolotl finds them, by putting others there."""
        turns = self.turns(messages, system)

        def write(conversation: Sequence[Mapping[str, str]]) -> str:
            text: str = tokenizer.apply_chat_template(conversation, tokenize=False)
            return text

        text, spans = write(turns), []
        for i, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            others = [
                write([*turns[:i], {**turn, "content": sentinel}, *turns[i + 1 :]])
                for sentinel in SENTINELS
            ]
            found = [differing(text, other) for other in others]
            spans.append((min(start for start, _ in found), max(end for _, end in found)))
        return text, spans

    def turns(self, messages: Sequence[Mapping[str, str]], system: str) -> list[dict[str, str]]:
        """The messages with the system prompt before them."""
        system = system or self.default_system
        first = [{"role": "system", "content": system.replace(EMPTY, "")}] if system else []
        return [*first, *({"role": m["role"], "content": m["content"]} for m in messages)]


class Writer:
    """A tokenizer whose ids are the texts themselves: what a template would have encoded."""

    def __init__(self, tokenizer: Any) -> None:
        self.bos_token_id = tokenizer.bos_token
        self.eos_token_id = tokenizer.eos_token

    def encode(self, text: str, **_: Any) -> list[str]:
        """The text."""
        return [text]

    def convert_tokens_to_ids(self, token: str) -> str:
        """The token's text."""
        return token

    def text(self, pieces: Sequence[Any]) -> str:
        """All of it."""
        return "".join(pieces).replace(HIDDEN, BRACES).replace(EMPTY, "")


class InstructionRows:
    """Reads instruction rows with the prompt of the recipe written out.

    The placeholders are filled as axolotl fills them (`str.format`; an empty input is none).
    """

    def __init__(self, prompt: Mapping[str, str], reader: Any, attributes: Any, data: Any) -> None:
        self.prompt = dict(prompt)
        self.own = reader(attributes, data)
        self.code = CODE

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row in LLaMA-Factory's common form."""
        names, prompt = self.own.dataset_attr, self.prompt
        result: dict[str, Any] = self.own(row)
        given = row.get(names.query) if names.query else None
        text = prompt["text"] if given else prompt["text_without_input"]
        system = row[names.system] if names.system in row else prompt["system"]
        before = prompt["system_text"].format(system=system) if system else ""
        content = before + text.format(instruction=row[names.prompt], input=given)
        return {**result, "_prompt": [{"role": "user", "content": content}], "_system": ""}


class ChatRows:
    """Reads conversations, and tells an empty system prompt from none."""

    def __init__(self, reader: Any, attributes: Any, data: Any) -> None:
        self.own = reader(attributes, data)
        self.code = CODE

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row in LLaMA-Factory's common form."""
        names = self.own.dataset_attr
        result: dict[str, Any] = self.own(row)
        first: Mapping[str, Any] = next(iter(row[names.messages] or ()), {})
        if first.get(names.role_tag) == names.system_tag and first.get(names.content_tag) == "":
            return {**result, "_system": EMPTY}
        return result


def pairs(ids: Sequence[int], trained: Sequence[bool]) -> Pairs:
    """Masked ids and the trained ones behind them, over and over."""
    found: Pairs = []
    masked: list[int] = []
    for learnt, group in groupby(zip(ids, trained, strict=True), key=lambda item: item[1]):
        run = [token for token, _ in group]
        if learnt:
            found.append((masked, run))
            masked = []
        else:
            masked = run
    return [*found, (masked, [])] if masked else found


def cut(found: Pairs, most: int | None) -> Pairs:
    """The first ids only, where LLaMA-Factory would shorten every turn."""
    if most is None:
        return found
    result: Pairs = []
    for masked, run in found:
        head = masked[:most]
        tail = run[: most - len(head)]
        most -= len(head) + len(tail)
        if head or tail:
            result.append((head, tail))
    return result


def one_pair(ids: Sequence[int], trained: Sequence[bool]) -> Pairs:
    """Everything before the first trained id, and from there to the last one."""
    places = [i for i, learnt in enumerate(trained) if learnt] or [len(ids)]
    return [(list(ids[: places[0]]), list(ids[places[0] : places[-1] + 1]))]


def differing(text: str, other: str) -> tuple[int, int]:
    """Where `text` differs from `other`, by what both start and end with."""
    most = min(len(text), len(other))
    start = next((i for i in range(most) if text[i] != other[i]), most)
    most -= start
    tail = next((i for i in range(most) if text[-1 - i] != other[-1 - i]), most)
    return start, len(text) - tail
