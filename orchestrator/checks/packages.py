"""Packages that a configuration needs and the backend's environment does not have (`FT243`).

The locks have what most runs need. What they lack can come from an environment of the user's own,
so the one in use is looked at; where there is none yet, the lock says what it will have.
"""

from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.backends.base import Paths, Target
from orchestrator.backends.registry import BACKENDS
from orchestrator.checks.rules import FIELDS, Config, number
from orchestrator.findings import Finding
from orchestrator.recipe.models import Recipe

COMPRESSOR = "axolotl.integrations.llm_compressor.LLMCompressorPlugin"

OPTIMIZERS = {
    "galore_": "galore-torch", "apollo_": "apollo-torch", "lomo": "lomo-optim",
    "adalomo": "lomo-optim", "grokadamw": "grokadamw", "schedule_free_": "schedulefree",
    "stable_adamw": "torch-optimi", "optimi_adamw": "torch-optimi", "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao", "ao_adamw_": "torchao", "adamw_apex_fused": "apex",
    "adamw_anyprecision": "torchdistx", "came_pytorch": "came-pytorch", "flash_": "flashoptim",
}  # fmt: skip
"""How an optimizer's name begins -> its package: `transformers/trainer_optimizer.py`, and axolotl's
`core/builders/base.py`. It is imported when the model has been loaded."""

NEEDS: dict[str, tuple[tuple[str, str, Callable[[Config], Any]], ...]] = {
    "axolotl": (
        ("context_parallel_size", "ring-flash-attn",
         lambda c: number(c, "context_parallel_size") > 1 and not c.get("use_glm_dsa_kernels")),
        ("plugins", "llmcompressor", lambda c: COMPRESSOR in (c.get("plugins") or ())),
    ),
    "llamafactory": (
        ("use_kt", "kt-kernel", lambda c: c.get("use_kt")),
        ("use_unsloth", "unsloth", lambda c: c.get("use_unsloth")),
        ("enable_liger_kernel", "liger-kernel", lambda c: c.get("enable_liger_kernel")),
        ("mixture_of_depths", "mixture-of-depth", lambda c: c.get("mixture_of_depths")),
        ("use_galore", "galore-torch", lambda c: c.get("use_galore")),
        ("use_apollo", "apollo-torch", lambda c: c.get("use_apollo")),
        ("use_badam", "badam", lambda c: c.get("use_badam")),
        ("use_adam_mini", "adam-mini", lambda c: c.get("use_adam_mini")),
        ("use_swanlab", "swanlab", lambda c: c.get("use_swanlab")),
        ("predict_with_generate", "jieba", lambda c: c.get("predict_with_generate")),
        ("report_to", "trackio", lambda c: "trackio" in str(c.get("report_to"))),
        ("report_to", "mlflow", lambda c: "mlflow" in str(c.get("report_to"))),
    ),
}  # fmt: skip
"""A backend's key, the package behind it, and whether it is in use."""


def packages(recipe: Recipe) -> Iterator[Finding]:
    """What would end at an import, minutes into a run or at its start."""
    backend = BACKENDS[recipe.backend]
    config = backend.config(recipe, Paths(), Target())
    needed = [(key, name) for key, name, uses in NEEDS[recipe.backend] if _safe(uses, config)]
    of_optimizer = "optimizer" if recipe.backend == "axolotl" else "optim"
    optimizer = str(config.get(of_optimizer))
    needed += [
        (of_optimizer, name) for begin, name in OPTIMIZERS.items() if optimizer.startswith(begin)
    ]
    if not needed:
        return
    there = available(recipe.backend)
    given = getattr(recipe.native, recipe.backend)
    for key, name in needed:
        if not there(name):
            yield Finding(
                "FT243",
                "error",
                f"{optimizer if key == of_optimizer else key} needs the package {name}, which ft's "
                f"environment of {backend.label} does not have",
                field=f"native.{recipe.backend}.{key}" if key in given else _field(recipe, key),
                fix="leave it out, or use an environment of your own that has it: "
                f"ft backend use {recipe.backend} --prefix FOLDER",
            )


def available(backend: str) -> Callable[[str], bool]:
    """Whether a package is in the environment in use, or will be in the one that ft makes."""
    from orchestrator.environments import locks, registry
    from orchestrator.errors import BackendEnvironmentError

    try:
        prefix = registry.resolve(backend).prefix
    except BackendEnvironmentError:
        pinned = locks.load(backend, "cuda").blocks
        return lambda name: name in pinned
    folders = [*prefix.glob("lib/python3*/site-packages")]
    return lambda name: any(
        any(folder.glob(f"{spelled}-*.*-info"))
        for folder in folders
        for spelled in (name, name.replace("-", "_"))
    )


def _safe(uses: Callable[[Config], Any], config: Config) -> bool:
    try:
        return bool(uses(config))
    except TypeError:  # a value of a type that nobody expects
        return False


def _field(recipe: Recipe, key: str) -> str:
    """The recipe's field behind a key."""
    from orchestrator.backends import fields

    found = {pair.key(recipe.backend): pair.field for pair, _ in fields.given(recipe)}
    own = {"enable_liger_kernel": "kernels.liger", "use_adam_mini": "training.optimizer",
           "plugins": "kernels.plugins", "report_to": "tracking.type",
           "optimizer": "training.optimizer", "optim": "training.optimizer"}  # fmt: skip
    return found.get(key) or own.get(key) or FIELDS.get(key, "")
