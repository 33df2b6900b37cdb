"""What the label report forbids, and from when on."""

from typing import Literal

from pydantic import Field

from orchestrator.recipe.sections.base import Section, Share

RuleName = Literal[
    "nothing-trained", "empty-rows", "wrong-role", "answer-untrained", "stop-untrained",
    "stop-unknown", "double-bos", "cut-answers", "dropped-rows", "all-trained", "template-trained",
    "template-differs", "control-tokens", "duplicates", "leaked-validation", "padding-trained",
    "beyond-embedding", "split-tokens", "untraced",
]  # fmt: skip
RuleLevel = Literal["off", "note", "warning", "error"]


class Inspect(Section):
    """The gate before training. A share above its limit has the rule's level; one below it, but
    not zero, is one level milder."""

    fail_on: Literal["error", "warning"] = Field("error", description="what stops a run")
    levels: dict[RuleName, RuleLevel] = Field(
        default_factory=dict, description="another level for a rule, or off"
    )
    empty_rows: Share = Field(0.01, description="rows without a trained token")
    stop_untrained: Share = Field(0.01, description="answers whose stop token is not trained")
    cut_answers: Share = Field(0.05, description="rows whose answer or stop token was cut off")
    dropped_rows: Share = Field(0.05, description="source rows that the backend left out")
    all_trained: Share = Field(0.95, description="trained tokens, where prompts are masked")
    duplicates: Share = Field(0.02, description="rows that are copies of others")
    leaked_validation: Share = Field(0.01, description="validation rows that are trained on")
    untraced: Share = Field(0.1, description="prepared rows whose source row is not found")
