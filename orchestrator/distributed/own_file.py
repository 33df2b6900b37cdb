"""A DeepSpeed configuration of the user's own: read, checked, and brought in line with the recipe.

It is changed only where it contradicts the recipe, since two values for one thing are an error of
the trainer at best ("values that mismatch TrainingArguments"), and at worst one of them is ignored.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.distributed import own_values
from orchestrator.errors import UsageError
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.sources import local_path

ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_anyprecision")
OPTIMIZERS = {
    **dict.fromkeys(("adam", "adamw"), ADAM),
    "adagrad": ("adagrad",),
    "lion": ("lion_32bit",),
}
"""DeepSpeed's optimizer -> what the recipe calls the same."""

PARAMETERS = {"adagrad": ("lr", "eps", "weight_decay"), "lion": ("lr", "betas", "weight_decay")}
"""What of an optimizer the recipe says; of the others also both."""

SCHEDULERS = {"WarmupLR": "constant_with_warmup", "WarmupDecayLR": "linear"}
"""DeepSpeed's schedule -> the recipe's; for these the trainer fills in `auto`."""

OWN_GROUPS = ("loraplus_ratio", "loraplus_embedding_rate")
"""Fields of the adapter with learning rates that only the trainer's own optimizer has."""


class Unreadable(UsageError):
    """The file is no DeepSpeed configuration; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the file that the recipe overrules."""

    key: str
    before: Any
    after: Any
    why: str

    def __str__(self) -> str:
        before = "nothing" if self.before is None else json.dumps(self.before)
        after = "left out" if self.after is None else json.dumps(self.after)
        return f"{self.key}: {before} -> {after}, since {self.why}"


def of_recipe(recipe: Recipe, beside: Path) -> dict[str, Any] | None:
    """The content of the file that a recipe names, if it is there.

    Raises:
        Unreadable: it is no JSON object, has a key twice, or values that nobody can use.
    """
    name = recipe.distributed.deepspeed_file
    path = local_path(name, beside) if name else None
    if path is None:
        return None
    document = read(path)
    wrong = [one for one in own_values.mistakes(document) if one.level == "error"]
    if wrong:
        line = own_values.lines(path.read_text("utf-8")).get(wrong[0].key)
        where = f"{path}:{line}" if line else str(path)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Unreadable(f"{where}: {wrong[0].key}: {wrong[0].text}{more}", hint=wrong[0].fix)
    return document


def read(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        Unreadable: it is no JSON object, or has a key twice.
    """
    try:
        document = json.loads(path.read_text("utf-8"), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        text = f"{path}:{error.lineno}:{error.colno}: {error.msg}"
        raise Unreadable(text, hint=PLAIN) from error
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is not in UTF-8: {error}", hint="save it as UTF-8") from error
    except RecursionError as error:
        raise Unreadable(f"{path} is nested too deeply to be a configuration") from error
    except _Twice as error:
        raise Unreadable(f"{path}: {error.args[0]} is there twice", hint="remove one") from error
    if not isinstance(document, dict):
        raise Unreadable(f"{path} is no JSON object", hint=PLAIN)
    return document


PLAIN = (
    "the trainer reads plain JSON: names in double quotes, no comments, no comma before } or ], "
    "no byte order mark"
)


class _Twice(Exception):
    """A key of that name is there twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(twice)
    return found


def patched(
    recipe: Recipe, document: Mapping[str, Any], dtype: str
) -> tuple[dict[str, Any], tuple[Change, ...]]:
    """The configuration in line with a recipe that computes in `dtype`, and what was changed."""
    config = copy.deepcopy(dict(document))
    changes: list[Change] = []
    for rule in (_batch, _clipping, _precision, _gathering, _optimizer, _scheduler, _cpu_adam):
        for change in rule(recipe, config, dtype):
            _put(config, change.key, change.after)
            changes.append(change)
    return config, tuple(changes)


Rule = Callable[[Recipe, dict[str, Any], str], Iterator[Change]]


def _batch(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    """Missing ones are errors of DeepSpeed's; the product is known with the processes only."""
    training, elastic = recipe.training, config.get("elasticity")
    if isinstance(elastic, Mapping) and elastic.get("enabled"):
        yield Change("elasticity", elastic, None, "the recipe says the batch")
    wanted = {
        "train_micro_batch_size_per_gpu": ("micro_batch_size", training.micro_batch_size),
        "gradient_accumulation_steps": ("gradient_accumulation", training.gradient_accumulation),
    }
    for key, (field, value) in wanted.items():
        given = config.get(key)
        if given not in ("auto", value):
            yield Change(key, given, "auto", f"training.{field} is {value}")
    if config.get("train_batch_size") != "auto":
        why = "it follows from the batch, its accumulation and the processes"
        yield Change("train_batch_size", config.get("train_batch_size"), "auto", why)


def _clipping(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    given, wanted = config.get("gradient_clipping"), recipe.training.max_grad_norm
    if given not in ("auto", wanted):
        yield Change("gradient_clipping", given, "auto", f"training.max_grad_norm is {wanted}")


def _precision(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    if "bfloat16" in config:  # DeepSpeed's older name, which hides the newer one
        yield Change("bfloat16", config["bfloat16"], None, "it is called bf16 now")
    for name, of_name in (("bf16", "bfloat16"), ("fp16", "float16")):
        part = config.get(name)
        given = part.get("enabled") if isinstance(part, Mapping) else None
        if given != (dtype == of_name) and (given is not None or dtype == of_name):
            why = f"the run computes in {dtype}"
            yield Change(f"{name}.enabled", given, dtype == of_name, why)


def _gathering(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    zero = config.get("zero_optimization")
    names = ("stage3_gather_16bit_weights_on_model_save", "gather_16bit_weights_on_model_save",
             "stage3_gather_fp16_weights_on_model_save")  # fmt: skip
    if not isinstance(zero, Mapping) or zero.get("stage") != 3:
        return
    if not any(zero.get(name) is True for name in names):
        key = f"zero_optimization.{names[0]}"
        yield Change(key, zero.get(names[0]), True, "the saved model has no weights without it")


def _optimizer(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    """What the block leaves out is DeepSpeed's default, a learning rate of 0.001 too."""
    block, training = config.get("optimizer"), recipe.training
    if not isinstance(block, Mapping):
        return
    kind = str(block.get("type")).lower()
    groups = [name for name in OWN_GROUPS if getattr(recipe.adapter, name) is not None]
    if groups or training.optimizer not in OPTIMIZERS.get(kind, ()):
        why = f"training.optimizer is {training.optimizer}"
        if groups:
            why = f"adapter.{groups[0]} is {getattr(recipe.adapter, groups[0])}"
        yield Change("optimizer", block.get("type"), None, why)
        return
    wanted = {
        "lr": ("learning_rate", training.learning_rate),
        "weight_decay": ("weight_decay", training.weight_decay),
        "betas": ("adam_beta1 and 2", [training.adam_beta1 or 0.9, training.adam_beta2 or 0.999]),
        "eps": ("adam_epsilon", training.adam_epsilon or 1e-8),
    }
    given = block.get("params")
    parameters = given if isinstance(given, Mapping) else {}
    for name in PARAMETERS.get(kind, tuple(wanted)):
        field, value = wanted[name]
        if parameters.get(name) not in ("auto", value):
            yield Change(f"optimizer.params.{name}", parameters.get(name), "auto",
                         f"training.{field} is {value}")  # fmt: skip


def _scheduler(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    """What the block leaves out is DeepSpeed's default: 1000 steps of warm-up, by logarithm."""
    block, wanted = config.get("scheduler"), recipe.training.scheduler
    if not isinstance(block, Mapping):
        return
    if SCHEDULERS.get(str(block.get("type"))) != wanted:
        yield Change("scheduler", block.get("type"), None, f"training.scheduler is {wanted}")
        return
    given = block.get("params")
    parameters = given if isinstance(given, Mapping) else {}
    names = ["warmup_max_lr", "warmup_num_steps"]
    names += ["total_num_steps"] if block.get("type") == "WarmupDecayLR" else []
    for name in names:
        if parameters.get(name) != "auto":
            yield Change(f"scheduler.params.{name}", parameters.get(name), "auto",
                         "the recipe says it")  # fmt: skip
    if "warmup_type" not in parameters:
        why = f"{wanted} warms up linearly"
        yield Change("scheduler.params.warmup_type", None, "linear", why)


def _cpu_adam(recipe: Recipe, config: dict[str, Any], dtype: str) -> Iterator[Change]:
    zero, wanted = config.get("zero_optimization"), recipe.distributed.cpu_adam
    device = zero.get("offload_optimizer") if isinstance(zero, Mapping) else None
    moved = isinstance(device, Mapping) and device.get("device") not in (None, "none")
    key = "zero_force_ds_cpu_optimizer"
    if moved and "optimizer" not in config and config.get(key, True) is not wanted:
        yield Change(key, config.get(key), wanted, f"distributed.cpu_adam is {str(wanted).lower()}")


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making the sections on the way; None removes it."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(config.get(name), dict):
            config[name] = {}
        config = config[name]
    if value is None:
        config.pop(last, None)
    else:
        config[last] = value
