"""The verdict: each rule looks at the facts and says what is wrong, why it hurts and what fixes it.

A rule has a code, a name (by which `inspect.levels` sets it), a level, and for rules about shares a
limit in `inspect`. Above the limit a finding has the rule's level, below it one level milder.

The defaults were chosen on prepared data of the formats and templates that the tests make: sound
data gives no finding at all, so what can only be a mistake is an error from the first row on
(another role trained, an answer not trained, template text trained), what some data cannot avoid
has a limit (long rows cut or dropped, copies), and what may be meant is a warning.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.findings import Finding, Level
from orchestrator.labels.facts import Facts
from orchestrator.labels.vocabulary import Vocabulary
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sections.inspect import RuleLevel, RuleName

MILDER: dict[RuleLevel, RuleLevel] = {"error": "warning", "warning": "note", "note": "note"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding of the label report with what it rests on."""

    finding: Finding
    rule: RuleName
    why: str
    count: int
    of: int
    rows: tuple[int, ...] = ()
    worst: int = -1
    examples: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        finding = self.finding
        return {
            "code": finding.code,
            "level": finding.level,
            "rule": self.rule,
            "message": finding.message,
            "why": self.why,
            "fix": finding.fix,
            "count": self.count,
            "of": self.of,
            "rows": list(self.rows),
            "worst": self.worst if self.worst >= 0 else None,
            "examples": [dict(example) for example in self.examples],
        }


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule looks at."""

    facts: Facts
    recipe: Recipe
    vocabulary: Vocabulary

    def hit(self, code: str) -> dict[str, Any]:
        """The rows that the scan collected for a rule; empty if there are none."""
        found: dict[str, Any] = self.facts.hits.get(code, {})
        return found

    def token(self, number: int | str) -> str:
        """A token as text."""
        return self.vocabulary.text(_array(int(number)))

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.recipe.backend


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule has to say: how many of how many, in words, and the way out."""

    count: int
    of: int
    message: str
    fix: str
    milder: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `limit` names a field of `inspect`."""

    code: str
    name: RuleName
    level: Level
    why: str
    say: Callable[[Case], Said | None]
    limit: str = ""


def verdict(facts: Facts, recipe: Recipe, vocabulary: Vocabulary) -> tuple[Judged, ...]:
    """All findings, the worst first."""
    case = Case(facts, recipe, vocabulary)
    found = list(_judge(case))
    found = [judged for judged in found if not _said(judged, found)]
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda judged: order.index(judged.finding.level)))


def _said(judged: Judged, found: list[Judged]) -> bool:
    """Whether another finding explains this one, for at least as many rows."""
    return any(
        judged.finding.code in IMPLIED.get(other.finding.code, ())
        and (other.count >= judged.count or other.finding.code in ("FT501", "FT530"))
        for other in found
    )


IMPLIED: dict[str, tuple[str, ...]] = {
    "FT501": ("FT502", "FT504", "FT505", "FT508", "FT530"),
    "FT508": ("FT502",),
    "FT530": ("FT503", "FT531"),
}
"""Findings that say the same thing again once the first one is known."""


def _judge(case: Case) -> Iterator[Judged]:
    for rule in RULES:
        said = rule.say(case)
        if said is None or not said.count:
            continue
        level = _level(case, rule, said)
        if level == "off":
            continue
        hit = case.hit(rule.code)
        yield Judged(
            Finding(rule.code, level, said.message, fix=said.fix),
            rule.name,
            rule.why,
            said.count,
            said.of,
            tuple(hit.get("rows", ())),
            int(hit.get("worst", -1)),
            tuple(hit.get("examples", ())),
        )


def _level(case: Case, rule: Rule, said: Said) -> Any:
    inspect = case.recipe.inspect
    level: RuleLevel = inspect.levels.get(rule.name, rule.level)
    if level in ("off", "note"):
        return level
    if not rule.limit:
        return MILDER[level] if said.milder else level
    share = said.count / said.of if said.of else 1.0
    return level if share > getattr(inspect, rule.limit) else MILDER[level]


def _array(number: int) -> Any:
    import numpy as np

    return np.array([number])


def _rows(count: int, of: int) -> str:
    share = f" ({count / of:.1%})" if of else ""
    return f"{count:,} of {of:,} rows{share}" if count != 1 else f"1 of {of:,} rows"


def _look(case: Case, code: str) -> str:
    rows = case.hit(code).get("rows") or [0]
    return f"look: ft inspect-tokens {case.recipe.name} --rows {rows[0]}"


def _longer(case: Case) -> str:
    return f"--set data.sequence_length={2 * case.facts.sequence_length}"


def _room(case: Case) -> str:
    """Makes room for new tokens in LLaMA-Factory's embeddings."""
    return "--set tokens.resize=true" + _trained_embeddings(case)


def _trained_embeddings(case: Case) -> str:
    adapter = case.recipe.adapter
    if adapter.type != "lora" or adapter.modules_to_save:
        return ""
    return " --set 'adapter.modules_to_save=[embed_tokens, lm_head]'"


def _nothing(case: Case) -> Said | None:
    facts = case.facts
    if not facts.rows:
        return Said(1, 1, "the prepared data set has no rows",
                    "is every row longer than data.sequence_length?")  # fmt: skip
    if facts.trained_tokens:
        return None
    return Said(
        facts.rows, facts.rows, f"not one token of {facts.rows:,} rows would be trained",
        "check data.train_on, data.sources[].roles and data.chat_template; is every prompt longer "
        "than data.sequence_length?",
    )  # fmt: skip


def _empty(case: Case) -> Said | None:
    hit = case.hit("FT502")
    if not hit:
        return None
    count, of = hit["count"], case.facts.sequences
    return Said(
        count, of, f"{_rows(count, of)} have no trained token",
        f"remove them, or {_longer(case)} if the prompt fills it; {_look(case, 'FT502')}",
    )  # fmt: skip


def _wrong_role(case: Case) -> Said | None:
    hit = case.hit("FT503")
    if not hit:
        return None
    roles = ", ".join(hit["notes"]) or "another role"
    fix = {
        "axolotl": "--set data.train_on=assistant; no roles_to_train or train_on_inputs under "
        "native.axolotl or the sources' native keys",
        "llamafactory": "--set data.train_on=assistant; no train_on_prompt under "
        "native.llamafactory",
    }[case.backend]
    return Said(
        hit["count"], case.facts.sequences,
        f"text of {roles} is trained in {_rows(hit['count'], case.facts.sequences)}", fix,
    )  # fmt: skip


def _untrained(case: Case) -> Said | None:
    hit = case.hit("FT504")
    if not hit:
        return None
    return Said(
        hit["count"], case.facts.sequences,
        f"an answer is not trained, or only in part, in "
        f"{_rows(hit['count'], case.facts.sequences)} ({hit['tokens']:,} turns)",
        "check data.sources[].roles, train_roles and columns.train; does the template change the "
        f"text? {_look(case, 'FT504')}",
    )  # fmt: skip


def _stop_untrained(case: Case) -> Said | None:
    facts = case.facts
    untrained = sum(facts.stops_untrained.values())
    count, of = untrained + facts.stop_missing, facts.turns_judged
    if not count:
        return None
    # a template without one: what follows an answer then is the start of the next turn
    none = facts.stop_missing and not facts.stops
    tokens = [] if none else [case.token(token) for token in facts.stops_untrained]
    named = ", ".join(repr(token) for token in tokens[:3])
    what = f"the stop token {named} is not trained" if tokens else "no stop token is trained"
    if case.backend == "axolotl":
        example = tokens[0] if tokens else "<token>"
        fix = (
            f"--set 'data.stop_tokens=[\"{example}\"]'; "
            "train_eos and train_eot of a source must not be none"
        )
    else:
        fix = "choose a template that ends a turn: --set data.chat_template=..."
    return Said(count, of, f"{what} after {count:,} of {of:,} answers", fix)


def _stop_unknown(case: Case) -> Said | None:
    known = case.facts.known_stops
    if known is None:
        return None
    unknown = [token for token in case.facts.stop_ids if token not in known]
    if not unknown:
        return None
    named = ", ".join(f"{case.token(token)!r} ({token})" for token in unknown)
    of = sum(case.facts.stops.values())
    count = sum(case.facts.stops[str(token)] for token in unknown)
    return Said(
        count, of,
        f"answers are trained to end with {named}, but the base's generation config stops at "
        f"{', '.join(str(token) for token in known)}",
        "serve the folder that `ft export` makes: it adds the token; or add it to eos_token_id",
    )  # fmt: skip


def _double_bos(case: Case) -> Said | None:
    hit = case.hit("FT507")
    if not hit:
        return None
    return Said(
        hit["count"], case.facts.sequences,
        f"{_rows(hit['count'], case.facts.sequences)} begin with two BOS tokens",
        "the template and the tokenizer both add one, or the data has it: remove it from the "
        "data or from the template",
    )  # fmt: skip


def _cut(case: Case) -> Said | None:
    hit = case.hit("FT508")
    if not hit:
        return None
    lost = ", ".join(f"{what} {count:,}" for what, count in case.facts.cut.items())
    return Said(
        hit["count"], case.facts.sequences,
        f"{_rows(hit['count'], case.facts.sequences)} are cut off at "
        f"{case.facts.sequence_length} tokens (lost: {lost})",
        f"{_longer(case)} (what is enough: ft inspect-tokens --lengths)"
        + (", or --set data.overlong=drop" if case.backend == "axolotl" else ""),
    )  # fmt: skip


def _dropped(case: Case) -> Said | None:
    facts = case.facts
    if not facts.dropped:
        return None
    reasons = "; ".join(f"{why}: {count:,}" for why, count in facts.dropped_reasons.items())
    return Said(
        facts.dropped, facts.source_rows,
        f"{facts.dropped:,} of {facts.source_rows:,} source rows are not in the prepared data "
        f"({reasons}; first: {', '.join(facts.dropped_places[:3])})",
        f"{_longer(case)} for long rows (see --lengths); else look at these rows",
    )  # fmt: skip


def _all_trained(case: Case) -> Said | None:
    facts = case.facts
    share = facts.trained_share
    if not facts.masked or share <= case.recipe.inspect.all_trained or not case.hit("FT503"):
        return None
    return Said(
        facts.trained_tokens, facts.tokens,
        f"{share:.1%} of all tokens are trained, though prompts should be masked",
        "--set data.train_on=assistant; no train_on_inputs (axolotl) or train_on_prompt "
        "(llamafactory) under native",
    )  # fmt: skip


def _template_trained(case: Case) -> Said | None:
    hit = case.hit("FT531")
    if not hit:
        return None
    example = hit["examples"][0]["offending"] if hit["examples"] else ""
    return Said(
        hit["count"], case.facts.sequences,
        f"text of the template is trained in {_rows(hit['count'], case.facts.sequences)}"
        + (f", for instance {example!r}" if example else ""),
        "the turn's start is not where the backend takes it to be: use a template by name, or "
        f"check train_eos and train_eot; {_look(case, 'FT531')}",
    )  # fmt: skip


def _template_differs(case: Case) -> Said | None:
    own, base = case.facts.template, case.facts.base_template
    found = own or base
    if not found or case.recipe.data.chat_template == "alpaca":
        return None
    whose = "the template that is saved with the model" if own else "the base's own template"
    return Said(
        1, max(case.facts.compared, 1),
        f"{whose} writes other {found['kind']} than was trained (row {found['row']}): after "
        f"{found['before'][-24:]!r} trained {found['trained'][:24]!r}, "
        f"served {found['served'][:24]!r}",
        ("" if case.recipe.data.chat_template == "tokenizer" else
         "--set data.chat_template=tokenizer, or ") + "serve with the template that was trained",
        milder=found["kind"] == "white space",
    )  # fmt: skip


def _controls(case: Case) -> Said | None:
    hit = case.hit("FT533")
    if not hit:
        return None
    example = hit["examples"][0]["offending"] if hit["examples"] else ""
    return Said(
        hit["count"], case.facts.sequences,
        f"text of the data contains control tokens in "
        f"{_rows(hit['count'], case.facts.sequences)}, for instance {example!r}",
        "remove or escape them in the data; they end turns that have not ended",
    )  # fmt: skip


def _duplicates(case: Case) -> Said | None:
    hit = case.hit("FT534")
    if not hit:
        return None
    count, of = hit["count"], case.facts.sequences
    return Said(
        count, of, f"{_rows(count, of)} are copies of others",
        "remove them from the data" if case.backend == "llamafactory"
        else "--set data.deduplicate=true",
    )  # fmt: skip


def _leaked(case: Case) -> Said | None:
    facts = case.facts
    if not facts.leaked:
        return None
    return Said(
        facts.leaked, facts.validation_rows,
        f"{facts.leaked:,} of {facts.validation_rows:,} validation rows are also trained on",
        "remove the copies: the evaluation loss says nothing about new text",
    )  # fmt: skip


def _padding(case: Case) -> Said | None:
    hit = case.hit("FT536")
    if not hit:
        return None
    return Said(
        hit["count"], case.facts.sequences,
        f"padding is trained in {_rows(hit['count'], case.facts.sequences)}",
        "padding is in the data, or is the stop token: remove it, or give the tokenizer a padding "
        "token of its own" + (" (--set tokens.pad=...)" if case.backend == "axolotl" else ""),
    )  # fmt: skip


def _beyond(case: Case) -> Said | None:
    hit = case.hit("FT537")
    if not hit:
        return None
    return Said(
        hit["count"], case.facts.sequences,
        f"{_rows(hit['count'], case.facts.sequences)} have tokens that the model's embedding has "
        "no row for",
        "use the base's own tokenizer, or make room: " + _room(case) if case.backend != "axolotl"
        else "use the base's own tokenizer; axolotl makes room only for tokens that it has added",
    )  # fmt: skip


def _split(case: Case) -> Said | None:
    hit = case.hit("FT538")
    if not hit:
        return None
    names = list(hit["notes"])[:3]
    listed = json.dumps(names, ensure_ascii=False)
    add = (
        f"--set 'tokens.add={listed}'{_trained_embeddings(case)}"
        if case.backend == "axolotl"
        else f"--set 'tokens.add_special={listed}' {_room(case)}"
    )
    own = (
        ""
        if case.recipe.data.chat_template == "tokenizer"
        else ("use the tokenizer's own template (--set data.chat_template=tokenizer), or ")
    )
    return Said(
        hit["count"], case.facts.sequences,
        f"{', '.join(map(repr, names))} of the template is no token of this tokenizer: it is "
        "split into pieces",
        f"{own}add the tokens: {add}",
    )  # fmt: skip


def _untraced(case: Case) -> Said | None:
    facts = case.facts
    if not facts.traceable:
        return None
    count = facts.sequences - facts.traced
    return Said(
        count, facts.sequences,
        f"for {_rows(count, facts.sequences)} the source row was not found, so their roles were "
        "not checked",
        "a template that rewrites the text can cause this; look at some rows",
    )  # fmt: skip


RULES: tuple[Rule, ...] = (
    Rule("FT501", "nothing-trained", "error",
         "the loss is computed on nothing, or is not a number", _nothing),
    Rule("FT502", "empty-rows", "error",
         "such rows cost time and teach nothing", _empty, "empty_rows"),
    Rule("FT503", "wrong-role", "error",
         "the model learns to write what the user or the system says", _wrong_role),
    Rule("FT504", "answer-untrained", "error",
         "what should be learned is masked, and no loss curve shows it", _untrained),
    Rule("FT505", "stop-untrained", "error",
         "a model that never learns its stop token never stops", _stop_untrained,
         "stop_untrained"),
    Rule("FT506", "stop-unknown", "warning",
         "the server goes on after the answer has ended", _stop_unknown),
    Rule("FT507", "double-bos", "error",
         "the model sees a start at serving that it was not trained on", _double_bos),
    Rule("FT508", "cut-answers", "error",
         "the model learns to break off, or never to stop", _cut, "cut_answers"),
    Rule("FT509", "dropped-rows", "warning",
         "the data that is trained on is not the data that was given", _dropped, "dropped_rows"),
    Rule("FT530", "all-trained", "error",
         "most of the loss is spent on repeating prompts", _all_trained),
    Rule("FT531", "template-trained", "error",
         "the model learns to write role headers itself", _template_trained),
    Rule("FT532", "template-differs", "warning",
         "answers get worse when serving writes prompts in another way", _template_differs),
    Rule("FT533", "control-tokens", "warning",
         "text of a user can end the user's turn and start another one", _controls),
    Rule("FT534", "duplicates", "warning",
         "copies are learned by heart and weigh more than other rows", _duplicates,
         "duplicates"),
    Rule("FT535", "leaked-validation", "warning",
         "the evaluation measures memory", _leaked, "leaked_validation"),
    Rule("FT536", "padding-trained", "error",
         "the model learns to write padding", _padding),
    Rule("FT537", "beyond-embedding", "error",
         "training dies with an index error, on a GPU without saying which", _beyond),
    Rule("FT538", "split-tokens", "warning",
         "the model has to learn to spell the ends of turns, and the server does not stop there",
         _split),
    Rule("FT539", "untraced", "note",
         "the report says less than it could", _untraced, "untraced"),
)  # fmt: skip
