"""axolotl's own list of settings, and its own judgement of a configuration.

axolotl 0.19.0 drops unknown keys without a word, at the top level and inside ``datasets``. So the
orchestrator needs the list, and ``validate`` reports what would be dropped.
"""

import ast
import importlib
import importlib.util
import inspect
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .backend_errors import explain_field
from .request import Request, Result, existing_path
from .schema import choices, parts, simple, type_name, write_key_file
from .versions import version

DEPRECATED = "DeprecatedParameters"


def aliases(field: Any) -> list[str]:
    """Other names under which a field is read."""
    found = [field.alias, field.validation_alias]
    choices_of = getattr(field.validation_alias, "choices", None)
    found += list(choices_of or [])
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))


def nested(annotation: Any) -> list[Any]:
    """The pydantic models inside an annotation."""
    from pydantic import BaseModel

    return [
        part for part in parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)
    ]


def entry(field: Any, defined_in: str) -> dict[str, Any]:
    """One setting: type, allowed values, default, models inside it."""
    described: dict[str, Any] = {"type": type_name(field.annotation)}
    if allowed := choices(field.annotation):
        described["choices"] = allowed
    default = simple(field.default)
    if default is not None:
        described["default"] = default
    if inner := nested(field.annotation):
        described["models"] = list(dict.fromkeys(model.__name__ for model in inner))
    if field.is_required():
        described["required"] = True
    if defined_in == DEPRECATED or field.deprecated:
        described["deprecated"] = True
    return described


def defining_class(model: Any, name: str) -> str:
    """The class in whose body a field is written."""
    for parent in model.__mro__:
        if name in inspect.get_annotations(parent):
            return str(parent.__name__)
    return str(model.__name__)


def fields(model: Any) -> dict[str, dict[str, Any]]:
    """Every setting of a model, its aliases included, in alphabetical order."""
    found: dict[str, dict[str, Any]] = {}
    for name, field in model.model_fields.items():
        found[name] = entry(field, defining_class(model, name))
    for name, field in model.model_fields.items():
        for alias in aliases(field):
            found.setdefault(alias, {"type": found[name]["type"], "alias_of": name})
    return dict(sorted(found.items()))


def names(model: Any) -> set[str]:
    """Every name under which a setting of a model is read."""
    return {name for key, field in model.model_fields.items() for name in (key, *aliases(field))}


def models_below(model: Any) -> dict[str, Any]:
    """Every model that a model's settings lead to, by name."""
    found: dict[str, Any] = {}
    waiting = [model]
    while waiting:
        for field in waiting.pop().model_fields.values():
            for inner in nested(field.annotation):
                if inner.__name__ not in found:
                    found[inner.__name__] = inner
                    waiting.append(inner)
    return found


def plugin_classes() -> Iterator[tuple[str, str | None]]:
    """The integrations' plugins and the class of their settings, read from the source.

    Importing a plugin may need a GPU library (Triton, vLLM) that a probe does not have.
    """
    import axolotl.integrations

    root = Path(axolotl.integrations.__path__[0])
    for path in sorted(root.rglob("*.py")):
        if path.parent == root:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            bases = {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
            if "BasePlugin" in bases:
                package = ".".join(path.parent.relative_to(root).parts)
                yield f"axolotl.integrations.{package}.{node.name}", settings_path(node)


def settings_path(plugin: ast.ClassDef) -> str | None:
    """The dotted name that ``get_input_args`` returns."""
    for node in plugin.body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_input_args":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Constant):
                    return str(inner.value.value)
    return None


def load_settings(path: str) -> Any:
    """The settings class of a plugin, or None where its module needs a package that is absent.

    The ``args`` module is tried first: importing the plugin's package imports the plugin.
    """
    module, name = path.rsplit(".", 1)
    for candidate in (module if module.endswith(".args") else f"{module}.args", module):
        try:
            return getattr(importlib.import_module(candidate), name)
        except (ImportError, AttributeError):
            continue
    return None


def fields_from_source(path: str) -> dict[str, dict[str, Any]]:
    """The setting names of a class that cannot be imported."""
    module, name = path.rsplit(".", 1)
    folder = importlib.util.find_spec(module.rsplit(".", 1)[0])
    places = list(folder.submodule_search_locations or []) if folder is not None else []
    source = Path(places[0], f"{module.rsplit('.', 1)[1]}.py").read_text(encoding="utf-8")
    return {
        statement.target.id: {"type": ast.unparse(statement.annotation)}
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name == name
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def keys(request: Request) -> Result:
    """Every key axolotl accepts, with the settings of all its plugins."""
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import DPODataset, KTODataset, SFTDataset, SyntheticDataset
    from axolotl.utils.schemas.enums import ChatTemplate

    top = fields(AxolotlInputConfig)
    models = models_below(AxolotlInputConfig)
    # validate_config picks these by `rl`, so the field's annotation does not name all of them.
    models.update(
        {model.__name__: model for model in (SFTDataset, DPODataset, KTODataset, SyntheticDataset)}
    )
    plugins: dict[str, str | None] = {}
    for plugin, settings in plugin_classes():
        plugins[plugin] = settings
        if settings is None:
            continue
        model = load_settings(settings)
        if model is not None:
            models.update(models_below(model))
        own = fields(model) if model is not None else fields_from_source(settings)
        for name, described in own.items():
            top.setdefault(name, {**described, "plugin": plugin})
    found: Result = {
        "backend": "axolotl",
        "release": version("axolotl"),
        "chat_templates": sorted(template.value for template in ChatTemplate),
        "plugins": dict(sorted(plugins.items())),
        "keys": dict(sorted(top.items())),
        "models": {name: fields(model) for name, model in sorted(models.items())},
    }
    return write_key_file(request, found)


class Collected(logging.Handler):
    """Keeps the warnings that axolotl's validators log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())


def unknown_keys(config: dict[str, Any], cfg: Any) -> list[str]:
    """Keys that axolotl would drop: neither a field nor an alias of the (plugin-extended) model."""
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import DPODataset, KTODataset, SFTDataset

    model = merge_input_args()[1] if cfg.plugins else AxolotlInputConfig
    known = names(model)
    dropped = [key for key in config if key not in known]
    row = {"dpo": DPODataset, "ipo": DPODataset, "simpo": DPODataset, "kto": KTODataset}
    # ds_type does nothing where it is not a field: the file's suffix tells
    dataset = {*names(row.get(str(config.get("rl")), SFTDataset)), "ds_type"}
    for index, source in enumerate(config.get("datasets") or []):
        dropped += [f"datasets[{index}].{key}" for key in source if key not in dataset]
    return dropped


def validate(request: Request) -> Result:
    """axolotl's verdict on ``config`` for the GPU that ``capabilities`` describes.

    Nothing is loaded or downloaded: only the schema and its validators run. ``messages`` are the
    reasons for a refusal, ``warnings`` what the validators logged, ``unknown_keys`` what axolotl
    would drop silently.
    """
    import yaml

    config = yaml.safe_load(existing_path(request, "config").read_text(encoding="utf-8"))
    capabilities = dict(request.get("capabilities") or {})
    collected = Collected()
    logger = logging.getLogger("axolotl")
    logger.addHandler(collected)
    world = os.environ.get("WORLD_SIZE")
    os.environ["WORLD_SIZE"] = str(capabilities.get("n_gpu", 1))  # some validators read it
    try:
        messages, dropped = judge(config, capabilities)
    finally:
        logger.removeHandler(collected)
        if world is None:
            del os.environ["WORLD_SIZE"]
        else:
            os.environ["WORLD_SIZE"] = world
    return {
        "accepted": not messages,
        "messages": messages,
        "warnings": collected.lines,
        "unknown_keys": dropped,
    }


def judge(config: dict[str, Any], capabilities: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The errors and the dropped keys of a configuration."""
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    settings = {
        "bf16": True,
        "fp8": False,
        "tf32": True,
        "n_gpu": 1,
        "compute_capability": "sm_80",
        **capabilities,
    }
    torch_version = str(version("torch")).split("+", maxsplit=1)[0]
    cfg = DictDefault(config)
    try:
        prepare_plugins(cfg)
        dropped = unknown_keys(config, cfg)
        validate_config(
            cfg, capabilities=settings, env_capabilities={"torch_version": torch_version}
        )
    except ValidationError as error:
        return [explain_field(problem) for problem in error.errors()], dropped
    except (ValueError, TypeError, KeyError, ImportError, NotImplementedError) as error:
        return [f"{type(error).__name__}: {error}"], []
    return [], dropped
