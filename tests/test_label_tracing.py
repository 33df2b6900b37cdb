"""Rows are found and labels judged whatever their text is: short, common, part of a template."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.labels.joints import trimmed
from orchestrator.labels.judge import judge
from orchestrator.labels.sources import origin_of, read_sources
from tests.helpers import loaded
from tests.label_templates import TEMPLATES, Template, Turns, conversation, prepared, rendered
from tests.label_world import save, tokenizer

often = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
template = st.sampled_from(TEMPLATES)


def frames(rows: list[Turns]) -> list[Turns]:
    """Rows that show the template by plain texts, as any real data set does."""
    usual: list[Turns] = [
        [*system, *(turn for i in range(3) for turn in (("user", f"Question {number} {i}"),
                                                        ("assistant", f"Answer {number} {i}")))]
        for number in range(6)
        for system in ([], [("system", f"Be brief {number}")])
    ]  # fmt: skip
    return usual + rows


@often
@given(rows=st.lists(conversation(), min_size=1, max_size=8), template=template)
def test_sound_rows_have_no_finding(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Turns], template: Template
) -> None:
    subject, _ = rendered(tmp_path_factory.mktemp("sound"), frames(rows), template)
    report = judge(subject)
    assert report.findings == ()
    assert report.facts.exact == report.facts.sequences


@often
@given(
    rows=st.lists(conversation(), min_size=1, max_size=4), template=template, place=st.integers(0)
)
def test_no_flipped_label_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Turns], template: Template, place: int
) -> None:
    subject, done = rendered(tmp_path_factory.mktemp("flip"), frames(rows), template)
    vocabulary = subject.prepared.vocabulary
    number = place % len(rows)
    ids, labels = done[number]["input_ids"], done[number]["labels"]
    inked = [at for at, token in enumerate(ids) if _inked(vocabulary.texts[token])]
    at = inked[place % len(inked)]
    labels[at] = ids[at] if labels[at] == -100 else -100
    save(subject.dataset, list(done))
    found = {finding.code for finding in judge(subject).findings}
    assert found & {"FT502", "FT503", "FT504", "FT505", "FT531"}, at


def _inked(piece: bytes) -> bool:
    return piece.isascii() and bool(piece.strip())


@pytest.mark.parametrize("template", TEMPLATES)
def test_many_rows_of_few_texts_are_told_apart(tmp_path: Path, template: Template) -> None:
    questions = [f"Is {word} a word?" for word in "abcdefghijklm"]
    answers = ["a", "b", "yes", "no", "assistant", "user", "5", "n/a"]
    rows: list[Turns] = [
        [("system", "Classify."), ("user", question), ("assistant", answer)]
        for question in questions
        for answer in answers
    ]
    subject, _ = rendered(tmp_path, rows, template)
    report = judge(subject)
    assert report.findings == ()
    lines = report.gathered.parts[0].lines.tolist()
    assert lines == list(range(len(rows), 0, -1))


def test_an_answer_that_is_a_part_of_its_header(tmp_path: Path) -> None:
    """`a` is not the first letter of `assistant`, even if there is one row only."""
    for number, answer in enumerate(("a", "assistant")):
        rows: list[Turns] = [[("user", "Which?"), ("assistant", answer)]]
        subject, _ = rendered(tmp_path / str(number), rows, TEMPLATES[0])
        assert judge(subject).findings == ()


def test_a_question_without_an_answer_is_no_answer_without_a_question(tmp_path: Path) -> None:
    rows: list[Turns] = [
        [("user", "Tell."), ("assistant", "")],
        [("user", ""), ("assistant", "Tell.")],
    ]
    subject, _ = rendered(tmp_path, frames(rows), TEMPLATES[1])
    assert judge(subject).findings == ()


def test_white_space_that_templates_trim() -> None:
    text = " \u00a0\u3000x \u2028y\u00a0 \x1f".encode()
    start, end = trimmed(text, 0, len(text))
    assert text[start:end].decode() == "x \u2028y"
    assert trimmed(b" \n ", 0, 3) == (3, 3)


def test_a_template_that_the_rows_do_not_show_is_not_guessed(tmp_path: Path) -> None:
    """Rows of other sources, which nothing was made of, are told as not found."""
    rows: list[Turns] = [[("user", f"One {i}"), ("assistant", f"Two {i}")] for i in range(8)]
    subject, _ = rendered(tmp_path, rows, TEMPLATES[0])
    made = tokenizer(subject.tokenizer, "")
    other = [prepared(made, TEMPLATES[0]([("user", "Other"), ("assistant", "Thing")]))] * 3
    save(subject.dataset, other)
    assert {f.code for f in judge(subject).findings} == {"FT509", "FT539"}


ODD = [None, 5, 1.5, True, [], {}, [1], [None], [["a", "b"]], {"role": "user"}, "x", "\ud800",
       [{"role": None, "content": None}], [{"role": ["a"], "content": "x"}],
       [{"role": "user", "content": "hi"}]]  # fmt: skip
COLUMNS = ("instruction", "input", "output", "messages", "text", "chosen", "rejected", "prompt",
           "completion", "segments")  # fmt: skip
FORMATS = (("alpaca", "sft"), ("messages", "sft"), ("text", "sft"), ("preference", "dpo"),
           ("kto", "kto"), ("pieces", "sft"))  # fmt: skip


@often
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS), st.sampled_from(ODD)), max_size=20),
    form=st.sampled_from(FORMATS),
)
def test_rows_of_any_shape_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], form: tuple[str, str]
) -> None:
    file = tmp_path_factory.mktemp("odd") / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = loaded(**{
        "data.sources": [{"path": str(file), "format": form[0]}], "training.stage": form[1],
        "backend": "llamafactory",
    }).recipe  # fmt: skip
    found = read_sources(recipe, [origin_of("d", recipe.data.sources[0], str(file))], "NFC")
    assert found.counts == [len(rows)]


def test_numbers_are_what_the_backends_write(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"instruction": "2+3", "output": 5}\n')
    recipe = loaded(**{"data.sources": [{"path": str(file), "format": "alpaca"}]}).recipe
    found = read_sources(recipe, [origin_of("d", recipe.data.sources[0], str(file))])
    assert found.indexes[""].heads == [b"2+3", b"5"]
