"""LLaMA-Factory's own list of settings and templates, and its own judgement of a configuration."""

import dataclasses
import json
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import torchaudio_stub
from .llamafactory_tasks import load_config
from .request import Request, Result, existing_path
from .schema import choices, simple, type_name, write_key_file
from .versions import version

SLOTS = (
    "format_user",
    "format_assistant",
    "format_system",
    "format_observation",
    "format_prefix",
)


def entry(field: Any, hints: dict[str, Any], group: str) -> dict[str, Any]:
    """One setting: its dataclass, type, allowed values, default and the first line of its help."""
    annotation = hints.get(field.name, field.type)
    described: dict[str, Any] = {"group": group, "type": type_name(annotation)}
    allowed = choices(annotation) or [
        value for item in field.metadata.get("choices") or [] if (value := simple(item)) is not None
    ]
    if allowed:
        described["choices"] = allowed
    default = None if field.default is dataclasses.MISSING else simple(field.default)
    if default is not None:
        described["default"] = default
    text = " ".join(str(field.metadata.get("help") or "").strip().split("\n\n")[0].split())
    if text:
        described["help"] = text.split(". ")[0].rstrip(".")
    return described


def fields(owner: Any, group: str) -> dict[str, dict[str, Any]]:
    """Every setting of a dataclass that a configuration may set."""
    try:
        hints = typing.get_type_hints(owner)
    except (NameError, TypeError):  # a name that exists only for type checkers
        hints = {}
    return {
        field.name: entry(field, hints, group) for field in dataclasses.fields(owner) if field.init
    }


def slots(formatter: Any) -> list[Any]:
    """A formatter's pieces: text as it is, special tokens as ``{"token": name}``."""
    pieces: list[Any] = []
    for slot in formatter.slots:
        if isinstance(slot, str):
            pieces.append(slot)
        elif isinstance(slot, set):
            pieces.extend({"token": name} for name in sorted(slot))
        else:
            pieces.append({"token": next(iter(dict(slot).values()))})
    return pieces


def template_entry(template: Any) -> dict[str, Any]:
    """One chat template."""
    return {
        "class": type(template).__name__,
        "default_system": template.default_system,
        "stop_words": list(template.stop_words),
        "efficient_eos": template.efficient_eos,
        "replace_eos": template.replace_eos,
        "enable_thinking": template.enable_thinking,
        **{name.removeprefix("format_"): slots(getattr(template, name)) for name in SLOTS},
    }


def keys(request: Request) -> Result:
    """Every key that training and export accept, and every template."""
    torchaudio_stub.install()
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import parser
    from llamafactory.hparams.training_args import RayArguments

    found: dict[str, dict[str, Any]] = {}
    for owner in (*parser._TRAIN_ARGS, RayArguments):
        group = owner.__name__.removesuffix("Arguments").lower()
        for name, described in fields(owner, group).items():
            found.setdefault(name, described)
    export = [field.name for owner in parser._INFER_ARGS for field in dataclasses.fields(owner)]
    for name in export:
        if name in found:
            found[name]["export"] = True
    listed: Result = {
        "backend": "llamafactory",
        "release": version("llamafactory"),
        "keys": dict(sorted(found.items())),
        "templates": {name: template_entry(TEMPLATES[name]) for name in sorted(TEMPLATES)},
    }
    return write_key_file(request, listed)


@contextmanager
def pretended_gpu(capabilities: dict[str, Any]) -> Iterator[None]:
    """Let transformers and llamafactory believe in the target's GPU while they check precision."""
    import transformers.training_args
    from llamafactory.hparams import parser

    answers = {
        "is_torch_bf16_gpu_available": bool(capabilities.get("bf16", True)),
        "is_torch_tf32_available": bool(capabilities.get("tf32", True)),
    }
    originals = [
        (module, name, getattr(module, name))
        for module in (transformers.training_args, parser)
        for name in answers
        if hasattr(module, name)
    ]
    try:
        for module, name, _ in originals:
            setattr(module, name, lambda *_, answer=answers[name], **__: answer)
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def validate(request: Request) -> Result:
    """llamafactory's verdict on ``config`` for the GPU that ``capabilities`` describes.

    ``kind`` is ``export`` for the file of the export command, which has its own arguments.
    """
    config = load_config(existing_path(request, "config"))
    messages = deepspeed_problems(config)
    torchaudio_stub.install()
    from llamafactory.hparams import get_infer_args, get_train_args

    parse = get_infer_args if request.get("kind") == "export" else get_train_args
    with pretended_gpu(dict(request.get("capabilities") or {})):
        try:
            parse(config)
        except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError) as error:
            messages.append(f"{type(error).__name__}: {error}")
    return {"accepted": not messages, "messages": messages, "warnings": [], "unknown_keys": []}


def deepspeed_problems(config: dict[str, Any]) -> list[str]:
    """Take DeepSpeed out after checking its file: llamafactory accepts it only under torchrun."""
    setting = config.pop("deepspeed", None)
    if not isinstance(setting, str):
        return []
    try:
        json.loads(Path(setting).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"deepspeed: {setting} cannot be read: {error}"]
    return []
