"""Write the smoke data sets: small, invented, learnable and the same on every machine.

A smoke run needs data whose loss falls within a few steps and whose rows differ enough to exercise
truncation, packing and masking: short and long answers, rows with and without ``input``, one to
three turns, with and without a system prompt. Everything below is composed from a few tables, so
there is nothing to download and nothing to license.

Run ``python orchestrator/smoke_data/generate.py`` to rewrite the files next to this script.
"""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = 200
Row = dict[str, object]

COLOURS = {
    "a ripe banana": "yellow",
    "fresh grass": "green",
    "a clear noon sky": "blue",
    "a fire engine": "red",
    "new snow": "white",
    "a lump of coal": "black",
    "a ripe pumpkin": "orange",
    "a lavender field": "purple",
    "a flamingo": "pink",
    "wet clay": "brown",
    "an elephant": "grey",
    "a lemon": "yellow",
    "a cucumber": "green",
    "a strawberry": "red",
    "a sheet of paper": "white",
    "a bar of chocolate": "brown",
}
PEOPLE = ("Mina", "Tomas", "Aroon", "Leila", "Oskar", "Priya", "Jonas", "Wanida")
GOODS = ("apples", "pencils", "marbles", "stamps", "tickets", "biscuits", "shells", "coins")
TUTOR = "You are a patient tutor. Answer in full sentences."
TERSE = "You answer briefly and never guess."

HEADLINES: dict[str, tuple[str, ...]] = {
    "World": (
        "Ministers from {n} countries met in {place} to renew a fishing treaty before winter.",
        "Voters in {place} chose a new parliament on Sunday, with {n} parties winning seats.",
        "Relief convoys reached {place} after {n} days of flooding closed the mountain roads.",
        "A border crossing near {place} reopened for the first time in {n} years.",
    ),
    "Sports": (
        "{person} scored {n} points as the home side from {place} won the cup final.",
        "The marathon in {place} was decided in the last {n} metres by {person}.",
        "Coach {person} signed for {n} more seasons with the rowing club of {place}.",
        "Rain delayed the tennis match in {place} for {n} hours before {person} served it out.",
    ),
    "Business": (
        "A tea trader in {place} raised its yearly profit forecast by {n} percent.",
        "Shares of the shipping group from {place} fell {n} percent after a weak quarter.",
        "{person} will lead the bakery chain of {place} and plans {n} new shops.",
        "The bank of {place} cut its lending rate for small firms to {n} percent.",
    ),
    "Sci/Tech": (
        "Engineers in {place} showed a battery that keeps its charge for {n} days.",
        "A telescope near {place} recorded {n} faint signals from a dying star.",
        "{person} released a free tool that finds {n} kinds of memory faults in programs.",
        "A laboratory in {place} grew coral {n} times faster with filtered light.",
    ),
}
PLACES = ("Lumora", "Port Anselm", "Kestrel Bay", "Nordhaven", "Sarabat", "Old Teren")


def addition(rng: random.Random) -> tuple[str, str, str]:
    """A sum: instruction, optional input, answer."""
    left, right = rng.randint(2, 60), rng.randint(2, 60)
    answer = f"The sum of {left} and {right} is {left + right}."
    if rng.random() < 0.5:
        return "Add the two numbers.", f"{left} and {right}", answer
    return f"What is {left} plus {right}?", "", answer


def story(rng: random.Random) -> tuple[str, str, str]:
    """A sum told as a story, with the working written out: the longer answers."""
    person, friend = rng.sample(PEOPLE, 2)
    goods = rng.choice(GOODS)
    start, more, gone = rng.randint(10, 40), rng.randint(2, 20), rng.randint(2, 9)
    question = (
        f"{person} has {start} {goods}. {friend} brings {more} more, "
        f"and then {gone} of them are given away. How many {goods} are left?"
    )
    answer = (
        f"{person} starts with {start} {goods}. After {friend} brings {more} more there are "
        f"{start + more} {goods}. When {gone} are given away, {start + more - gone} {goods} "
        f"remain. So the answer is {start + more - gone}."
    )
    return question, "", answer


def colour(rng: random.Random) -> tuple[str, str, str]:
    """A lookup in the colour table."""
    thing = rng.choice(sorted(COLOURS))
    answer = f"The usual colour of {thing} is {COLOURS[thing]}."
    if rng.random() < 0.5:
        return "Name the usual colour of the thing.", thing, answer
    return f"Which colour does {thing} have?", "", answer


def counting(rng: random.Random) -> tuple[str, str, str]:
    """A list of numbers: the answer length follows the question."""
    first, length = rng.randint(1, 40), rng.randint(3, 12)
    numbers = ", ".join(str(first + step) for step in range(length))
    question = f"Count {length} numbers upwards, starting at {first}."
    return question, "", f"Here are {length} numbers starting at {first}: {numbers}."


MAKERS: tuple[Callable[[random.Random], tuple[str, str, str]], ...] = (
    addition,
    story,
    colour,
    counting,
)


def exchange(rng: random.Random) -> tuple[str, str]:
    """One question in a single string, and its answer."""
    instruction, extra, answer = rng.choice(MAKERS)(rng)
    return (f"{instruction} {extra}".strip(), answer)


def wrong(answer: str, rng: random.Random) -> str:
    """A worse answer of another length: preference training needs a visible difference."""
    return rng.choice(
        (
            "I do not know.",
            "It is hard to say, and I would rather talk about something else today.",
            f"Maybe {rng.randint(100, 999)}, maybe not.",
            answer.rstrip(".").upper() + "???",
        )
    )


def alpaca(rng: random.Random) -> Row:
    """``instruction``, ``input`` (often empty), ``output``."""
    instruction, extra, answer = rng.choice(MAKERS)(rng)
    return {"instruction": instruction, "input": extra, "output": answer}


def messages(rng: random.Random) -> Row:
    """OpenAI-style conversations of one to three exchanges; a third have a system prompt."""
    turns: list[dict[str, str]] = []
    if rng.random() < 1 / 3:
        turns.append({"role": "system", "content": rng.choice((TUTOR, TERSE))})
    for _ in range(rng.choice((1, 1, 2, 3))):
        question, answer = exchange(rng)
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": answer})
    return {"messages": turns}


def text(rng: random.Random) -> Row:
    """Plain paragraphs for continued pretraining."""
    sentences = [exchange(rng)[1] for _ in range(rng.randint(1, 6))]
    return {"text": " ".join(sentences)}


def preference(rng: random.Random) -> Row:
    """A prompt as messages, with a chosen and a rejected reply."""
    question, answer = exchange(rng)
    return {
        "messages": [{"role": "user", "content": question}],
        "chosen": {"role": "assistant", "content": answer},
        "rejected": {"role": "assistant", "content": wrong(answer, rng)},
    }


def kto(rng: random.Random) -> Row:
    """A prompt and one reply with a thumbs-up or thumbs-down."""
    question, answer = exchange(rng)
    good = rng.random() < 0.5
    return {
        "prompt": question,
        "completion": answer if good else wrong(answer, rng),
        "label": good,
    }


def agnews(rng: random.Random) -> Row:
    """Invented headlines with a topic: the classification shape."""
    label = rng.randrange(len(HEADLINES))
    topic = tuple(HEADLINES)[label]
    sentences = rng.sample(HEADLINES[topic], rng.randint(1, 2))
    body = " ".join(
        sentence.format(n=rng.randint(2, 30), place=rng.choice(PLACES), person=rng.choice(PEOPLE))
        for sentence in sentences
    )
    return {"text": body, "label": label, "label_text": topic}


DATASETS: dict[str, Callable[[random.Random], Row]] = {
    "alpaca": alpaca,
    "messages": messages,
    "text": text,
    "preference": preference,
    "kto": kto,
    "agnews": agnews,
}


def lines(name: str) -> Iterable[str]:
    """The rows of one data set, all different, from a generator seeded by its own name."""
    rng = random.Random(f"ft-smoke-{name}")
    made: dict[str, None] = {}
    while len(made) < ROWS:
        made[json.dumps(DATASETS[name](rng), ensure_ascii=False) + "\n"] = None
    return made


def main() -> None:
    """Rewrite every data set beside this script."""
    for name in DATASETS:
        (HERE / f"{name}.jsonl").write_text("".join(lines(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
