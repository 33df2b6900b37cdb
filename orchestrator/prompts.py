"""The Alpaca prompt, spelled out: one text for both backends."""

from dataclasses import asdict, dataclass

from orchestrator.recipe.models import Recipe

WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
WITHOUT_INPUT = "### Instruction:\n{instruction}\n\n### Response:\n"
SYSTEM_TEXT = "{system}\n\n"
TASK = "Below is an instruction that describes a task. "
TASK_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. "
)
COMPLETE = "Write a response that appropriately completes the request."


@dataclass(frozen=True, slots=True)
class AlpacaPrompt:
    """What stands around an instruction row; the placeholders are filled by `str.format`."""

    text: str
    text_without_input: str
    system: str
    system_text: str

    def as_dict(self) -> dict[str, str]:
        """For a request."""
        return asdict(self)


def alpaca_prompt(recipe: Recipe, *, has_system: bool) -> AlpacaPrompt:
    """The prompt of a recipe's instruction rows.

    The first sentence depends on whether a row has an input, as in the original, so it is part of
    the texts, unless a system prompt of the recipe or a column of the data takes its place.
    """
    if recipe.data.default_system or has_system:
        system = recipe.data.default_system or TASK + COMPLETE
        return AlpacaPrompt(WITH_INPUT, WITHOUT_INPUT, system, SYSTEM_TEXT)
    return AlpacaPrompt(
        f"{TASK_WITH_INPUT}{COMPLETE}\n\n{WITH_INPUT}",
        f"{TASK}{COMPLETE}\n\n{WITHOUT_INPUT}",
        "",
        SYSTEM_TEXT,
    )
