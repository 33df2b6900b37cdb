"""What a backend cannot do: one table, for findings, for `ft backend capabilities`, for the README.

A field that is one key of a backend (`backends.fields`) is supported where it has a key. What
depends on values, and what needs a note, is in `CONCEPTS`.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.backends.fields import PAIRS, field_value, given
from orchestrator.backends.keys import load_keys
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe, Source
from orchestrator.recipe.sections.optimizers import HUGGING_FACE, SCHEDULERS

Support = Literal["yes", "no", "partly"]
BACKENDS = ("axolotl", "llamafactory")
LABELS = {"axolotl": "axolotl", "llamafactory": "llamafactory"}
LLAMAFACTORY_ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3")
AXOLOTL_SCHEDULERS = (*SCHEDULERS, "one_cycle", "rex")
LLAMAFACTORY_OPTIMIZERS = (*HUGGING_FACE, "muon", "adam_mini")
LLAMAFACTORY_LOSSES = ("sigmoid", "hinge", "ipo", "kto_pair", "simpo")


@dataclass(frozen=True, slots=True)
class Concept:
    """A field or a value of one, and who can do it.

    `used` says whether a recipe asks for it; None: findings about it are made elsewhere.
    """

    name: str
    field: str
    axolotl: Support = "yes"
    llamafactory: Support = "yes"
    note: str = ""
    used: Callable[[Recipe], bool] | None = None

    def support(self, backend: str) -> Support:
        """Of a backend by name."""
        return self.axolotl if backend == "axolotl" else self.llamafactory


def _stage(*stages: str) -> Callable[[Recipe], bool]:
    return lambda recipe: recipe.training.stage in stages


def _any_source(test: Callable[[Source], Any]) -> Callable[[Recipe], bool]:
    return lambda recipe: any(
        test(s) for s in (*recipe.data.sources, *recipe.data.validation_sources)
    )


CONCEPTS: tuple[Concept, ...] = (
    Concept("rows that are too long: drop or refuse", "data.overlong", llamafactory="no",
            note="llamafactory cuts them"),
    Concept("the same tokens and labels on both backends", "data.tokenization",
            note="in runs of ft; llamafactory by itself tokenizes otherwise"),
    Concept("loss on the last turn only", "data.train_on", axolotl="no",
            note="axolotl needs a column that marks it"),
    Concept("stop tokens by name", "data.stop_tokens", llamafactory="no",
            note="llamafactory takes them from its template"),
    Concept("chat template from a file", "data.chat_template", llamafactory="no"),
    Concept("instruction rows in a chat template", "data.chat_template", axolotl="no"),
    Concept("preference data with renamed roles", "data.sources[].roles", axolotl="no"),
    Concept("a history column", "data.sources[].columns.history", axolotl="no"),
    Concept("KTO rows in a chat template", "data.sources[].format", axolotl="no"),
    Concept("a default system prompt", "data.default_system", axolotl="partly",
            note="axolotl: of instruction rows"),
    Concept("a subset of preference data", "data.sources[].subset", axolotl="no"),
    Concept("plain text in the sft stage", "data.sources[].format", llamafactory="no"),
    Concept("data at a revision", "data.sources[].revision", llamafactory="no"),
    Concept("ORPO", "training.stage", axolotl="partly",
            note="axolotl: only with format: custom"),
    Concept("reward models", "training.stage", axolotl="partly",
            note="axolotl: only with format: custom"),
    Concept("PPO", "training.stage", axolotl="no", used=_stage("ppo")),
    Concept("GRPO, GDPO, EBFT, process rewards", "training.stage", llamafactory="no",
            used=_stage("grpo", "gdpo", "ebft", "process_reward")),
    Concept("freeze and OFT", "adapter.type", axolotl="no",
            note="axolotl freezes by adapter.trainable_parameters",
            used=lambda r: r.adapter.type in ("freeze", "oft")),
    Concept("LoRA targets by regular expression", "adapter.targets", llamafactory="no",
            used=lambda r: isinstance(r.adapter.targets, str)
            and r.adapter.targets != "all-linear"),
    Concept("LoRA on listed and on all linear layers", "adapter.linear_too", llamafactory="no",
            used=lambda r: bool(r.adapter.linear_too)),
    Concept("LoRA initializations but PiSSA", "adapter.init", llamafactory="no",
            used=lambda r: r.adapter.init not in (None, True)
            and not str(r.adapter.init).startswith("pissa")),
    Concept("further attention kernels", "model.attention", llamafactory="no",
            note="llamafactory: auto, eager, sdpa, flash_attention_2, flash_attention_3",
            used=lambda r: r.model.attention not in LLAMAFACTORY_ATTENTION),
    Concept("Liger's parts one by one", "kernels.liger", llamafactory="partly",
            note="llamafactory turns all of them on"),
    Concept("cut cross entropy", "kernels.cut_cross_entropy", llamafactory="no",
            used=lambda r: bool(r.kernels.cut_cross_entropy)),
    Concept("plugins", "kernels.plugins", llamafactory="no",
            used=lambda r: bool(r.kernels.plugins)),
    Concept("gradient checkpointing with offload", "training.gradient_checkpointing",
            llamafactory="no",
            used=lambda r: r.training.gradient_checkpointing in ("offload", "offload_disk")),
    Concept("Unsloth's gradient checkpointing", "training.gradient_checkpointing", axolotl="no",
            used=lambda r: r.training.gradient_checkpointing == "unsloth"),
    Concept("packed rows that see each other", "data.packing_mixes", axolotl="no",
            used=lambda r: r.data.packing and r.data.packing_mixes),
    Concept("evaluation unpacked beside packed training", "data.packing_evaluation",
            llamafactory="no", note="llamafactory packs both"),
    Concept("data sets by their name in dataset_info.json", "data.sources[].format", axolotl="no",
            note="import with --dataset-info to have them described",
            used=_any_source(lambda s: s.format == "registered")),
    Concept("rows that only a handler of the backend reads", "data.sources[].handler",
            llamafactory="no", used=_any_source(lambda s: s.format == "custom")),
    Concept("input-output pieces", "data.sources[].format", llamafactory="no",
            used=_any_source(lambda s: s.format == "pieces")),
    Concept("a prompt of one's own", "data.sources[].prompt", llamafactory="no",
            used=_any_source(lambda s: s.prompt)),
    Concept("a template per source", "data.sources[].chat_template", llamafactory="no",
            used=_any_source(lambda s: s.chat_template)),
    Concept("which roles and ends are trained", "data.sources[].train_roles", llamafactory="no",
            used=_any_source(lambda s: s.train_roles not in (None, ("assistant",))
                             or s.train_eos not in (None, "turn") or s.train_eot)),
    Concept("loss weights per message", "data.sources[].columns.train", llamafactory="no",
            used=_any_source(lambda s: {"train", "train_detail", "thinking"} & set(s.columns))),
    Concept("images, videos and sound in columns", "data.sources[].columns.images", axolotl="no",
            note="axolotl takes media from the messages",
            used=_any_source(lambda s: {"images", "videos", "audios"} & set(s.columns))),
    Concept("files, file type or shards of a source", "data.sources[].files", llamafactory="no",
            used=_any_source(lambda s: s.files or s.file_type or s.shards or s.skip)),
)  # fmt: skip
"""What is not one key of a backend, or needs a word."""


def table() -> list[dict[str, str]]:
    """Every concept and field with who supports it, for people and programs."""
    rows = [
        {"concept": c.name, "field": c.field, "axolotl": c.axolotl,
         "llamafactory": c.llamafactory, "note": c.note}
        for c in CONCEPTS
    ]  # fmt: skip
    for pair in PAIRS:
        axolotl, llamafactory = pair.axolotl or "no", pair.llamafactory or "no"
        rows.append({"concept": "", "field": pair.field, "axolotl": axolotl,
                     "llamafactory": llamafactory, "note": ""})  # fmt: skip
    return rows


def markdown() -> str:
    """The README's table."""
    lines = ["| what | field | Axolotl | LLaMA-Factory | |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.name} | `{c.field}` | {c.axolotl} | {c.llamafactory} | {c.note} |" for c in CONCEPTS
    ]
    both = sum(1 for pair in PAIRS if pair.axolotl and pair.llamafactory)
    axolotl = sum(1 for pair in PAIRS if not pair.llamafactory)
    lines.append(
        f"\nOf {len(PAIRS)} further fields that are one setting of a backend, {both} exist in "
        f"both, {axolotl} only in Axolotl and {len(PAIRS) - both - axolotl} only in LLaMA-Factory: "
        "`ft backend capabilities` lists them."
    )
    return "\n".join(lines) + "\n"


HARMLESS: dict[str, tuple[Any, ...]] = {
    "model.model_class": ("AutoModelForCausalLM",),
    "model.tokenizer_class": ("AutoTokenizer",),
    "model.processor_class": ("AutoProcessor",),
    "data.samples": (),
    "data.rebuild": (),
    "data.batch_rows": (),
    "training.log_level": (),
}
"""Fields that a backend may lack at no loss: at these values, or at any if none is named.

`data.samples` becomes part of each source's split on axolotl; the others do not change training.
"""


def findings(recipe: Recipe, backend: str) -> Iterator[Finding]:
    """`FT405`: what of this recipe the backend cannot express, field by field."""
    for concept in CONCEPTS:
        if concept.used and concept.support(backend) == "no" and concept.used(recipe):
            yield _finding(backend, concept.field.replace("[]", ""), concept.name, concept.note)
    for pair, value in given(recipe):
        if pair.key(backend) is None and not _harmless(pair.field, value):
            yield _finding(backend, pair.field, pair.field, "")
    yield from _names(recipe, backend)


def _harmless(field: str, value: Any) -> bool:
    if value is False:
        return True  # what the backend does not have is off
    return field in HARMLESS and (not HARMLESS[field] or value in HARMLESS[field])


def _finding(backend: str, field: str, what: str, note: str) -> Finding:
    others = [name for name in BACKENDS if name != backend]
    return Finding(
        "FT405",
        "error",
        f"{LABELS[backend]} cannot express {what}" + (f" ({note})" if note else ""),
        field=field,
        fix=f"remove it, --backend {others[0]}, or --allow-loss to render the rest",
    )


def optimizers(backend: str) -> tuple[str, ...]:
    """Names that a backend has."""
    if backend == "llamafactory":
        return LLAMAFACTORY_OPTIMIZERS
    return (*HUGGING_FACE, *load_keys(backend)["keys"]["optimizer"].get("choices", ()))


def schedulers(backend: str) -> tuple[str, ...]:
    """Names that a backend has."""
    return SCHEDULERS if backend == "llamafactory" else AXOLOTL_SCHEDULERS


def _names(recipe: Recipe, backend: str) -> Iterator[Finding]:
    """`FT407`: names of optimizers, schedules and losses that the backend does not have."""
    known = {"training.optimizer": optimizers(backend), "training.scheduler": schedulers(backend)}
    if backend == "llamafactory" and recipe.training.stage == "dpo":
        known["training.preference.loss"] = LLAMAFACTORY_LOSSES
    for field, names in known.items():
        name = field_value(recipe, field)
        if name in names:
            continue
        close = difflib.get_close_matches(name, names, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        yield Finding(
            "FT407",
            "error",
            f"{LABELS[backend]} has no {field.rsplit('.', 1)[-1]} {name!r}{guess}",
            field=field,
            fix="ft backend capabilities shows what each backend has" if not close else "",
        )


def lost_native(recipe: Recipe, other: str) -> Iterator[Finding]:
    """`FT406`: native keys of the backend that a recipe was written for, rendered for another."""
    if not getattr(recipe.native, recipe.backend):
        for key in getattr(recipe.native, other):
            yield _lost(recipe.backend, f"native.{other}.{key}")
    for group in ("sources", "validation_sources"):
        for index, source in enumerate(getattr(recipe.data, group)):
            for key in getattr(source.native, other):
                yield _lost(recipe.backend, f"data.{group}[{index}].native.{other}.{key}")


def _lost(backend: str, field: str) -> Finding:
    return Finding(
        "FT406",
        "error",
        f"{field} does nothing on {LABELS[backend]}",
        field=field,
        fix="--allow-loss to render the rest",
    )


def allowed(finding: Finding) -> Finding:
    """A loss as a warning: the user knows of it."""
    format = finding.code in ("FT401", "FT402") and finding.field.endswith(".format")
    lossy = finding.code in LOSSY and finding.field != "training.stage" and not format
    return replace(finding, level="warning", fix="") if lossy else finding


LOSSY = ("FT208", "FT401", "FT402", "FT403", "FT405", "FT406", "FT407")
"""What can be left out with something to train left. Another stage is another training."""
