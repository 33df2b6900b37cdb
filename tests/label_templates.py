"""Templates as functions of a conversation, and rows whose labels are right by construction."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import Tokenizer

from orchestrator.labels.facts import Subject
from tests.label_world import BOS, END, START, Prepared, save, tokenizer, world

Turns = list[tuple[str, str]]
Segments = list[tuple[str, bool]]
Template = Callable[[Turns], Segments]


def chatml(turns: Turns) -> Segments:
    """Every turn between control tokens; nothing is trimmed."""
    found: Segments = []
    for role, text in turns:
        found += [(f"{START}{role}\n", False), (text + END, role == "assistant"), ("\n", False)]
    return found


def bracketed(turns: Turns) -> Segments:
    """As Mistral: the system prompt is part of the first user turn."""
    found: Segments = [(BOS, False)]
    system = ""
    for role, text in turns:
        if role == "system":
            system = f"{text.strip()}\n\n"
        elif role == "user":
            found.append((f"[INST] {system}{text.strip()} [/INST]", False))
            system = ""
        else:
            found.append((f" {text.strip()}{END}", True))
    return found


def plain(turns: Turns) -> Segments:
    """As Vicuna: words for roles."""
    found: Segments = []
    for role, text in turns:
        if role == "assistant":
            found += [("ASSISTANT:", False), (f" {text.strip()}{END}", True)]
        else:
            found.append(
                (f"USER: {text.strip()} " if role == "user" else f"{text.strip()} ", False)
            )
    return found


def headed(turns: Turns) -> Segments:
    """As Alpaca: headings for roles."""
    names = {"system": "System", "user": "Instruction"}
    found: Segments = []
    for role, text in turns:
        if role == "assistant":
            found += [("### Response:\n", False), (text.strip() + END, True), ("\n\n", False)]
        else:
            found.append((f"### {names[role]}:\n{text.strip()}\n\n", False))
    return found


TEMPLATES: tuple[Template, ...] = (chatml, bracketed, plain, headed)

# what is short, common, part of a template, or changed by trimming
TEXTS = (
    "yes", "no", "5", "a", "b", ".", "!!!", "user", "assistant", "system", "ASSISTANT:",
    "### Response:", "user\nyes", "assistant\nno", "> yes", "no: yes", "1. yes\n2. no",
    "\U0001f44d", "\u597d", "\u05e9\u05dc\u05d5\u05dd", "e\u0301", "\u200bhi\u200b",
    "\u00a0edge\u00a0", "\ttab\t", "\r\nx\r\n", "\u3000wide\u3000", "a\r\nb", "x" * 24, "x" * 30,
    "The first twenty-four bytes are the same: A", "The first twenty-four bytes are the same: B",
)  # fmt: skip
text = st.sampled_from(TEXTS)


@st.composite
def conversation(draw: st.DrawFn) -> Turns:
    """Some turns, with or without a system prompt."""
    turns: Turns = [("system", draw(text))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [("user", draw(text)), ("assistant", draw(text))]
    return turns


def prepared(made: Tokenizer, segments: Segments) -> Prepared:
    """A row of segments, each trained or not."""
    row: Prepared = {"input_ids": [], "labels": []}
    for words, trained in segments:
        ids = made.encode(words, add_special_tokens=False).ids
        row["input_ids"] += ids
        row["labels"] += ids if trained else [-100] * len(ids)
    return row


def rendered(folder: Path, rows: list[Turns], template: Template) -> tuple[Subject, list[Prepared]]:
    """A subject whose rows were made by a template, in reverse order."""
    subject = world(
        folder, rows=rows, template="", inspect={"levels": {"duplicates": "off"}}
    )  # fmt: skip
    made = tokenizer(subject.tokenizer, "")
    done = [prepared(made, template(turns)) for turns in rows[::-1]]
    save(subject.dataset, list(done))
    return subject, done
