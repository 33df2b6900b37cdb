"""The data of an axolotl configuration: its entries as sources, its template."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.backends.axolotl.data import COLUMN_KEYS, CUSTOM_KEYS, DS_TYPES, OPTION_KEYS
from orchestrator.importing.draft import Draft
from orchestrator.templates import ALPACA, TEMPLATES, TOKENIZER

Config = Mapping[str, Any]
FIRST_ROWS = re.compile(r"(\w+)\[:(\d+)\]")


def data(config: Config, draft_: Draft) -> None:
    """Fill the draft's data section."""
    streams = isinstance(config.get("pretraining_dataset"), list)
    entries = entries_of(config, "pretraining_dataset" if streams else "datasets")
    template = _template(config, draft_, entries)
    sources = [_source(entry, config, template, streams) for entry in entries]
    if sources:
        draft_.put("data.sources", sources)
    tests = entries_of(config, "test_datasets")
    if tests:
        found = [_source(entry, config, template, False) for entry in tests]
        draft_.put("data.validation_sources", found)
        draft_.document["data"].pop("validation", None)
    if streams:
        draft_.put("data.streaming", True)
    if config.get("sample_packing") is True:
        packed = config.get("eval_sample_packing")
        fields_ = draft_.document.setdefault("data", {})
        fields_["packing_evaluation"] = packed if isinstance(packed, bool) else None
    strategies = {"truncate": "truncate", "raise": "error", "drop": "drop"}
    draft_.put("data.overlong", strategies.get(str(config.get("excess_length_strategy"))))
    if config.get("train_on_inputs") is True:
        draft_.put("data.train_on", "all")
    if "sequence_len" not in config:
        draft_.put("data.sequence_length", 512)
    folder = config.get("dataset_prepared_path")
    draft_.put("data.prepared", folder) if folder else draft_.leave("data.prepared")


def _template(config: Config, draft_: Draft, entries: list[Any]) -> str:
    """The neutral name of the template; instruction rows alone have the Alpaca prompt."""
    name = config.get("chat_template")
    file = config.get("chat_template_jinja")
    if name == "jinja" and isinstance(file, str) and file.endswith(".jinja"):
        template = file
    elif name in (None, "tokenizer_default"):
        only = bool(entries) and all(entry.get("type") == "alpaca" for entry in entries)
        template = ALPACA if only and name is None else TOKENIZER
    else:
        known = (key for key, value in TEMPLATES.items() if value.axolotl == name)
        template = next(known, str(name))
    draft_.put("data.chat_template", template)
    stop = TEMPLATES[template].stop if template in TEMPLATES else ""
    if config.get("eot_tokens"):
        draft_.put("data.stop_tokens", config["eot_tokens"])
    elif stop:
        draft_.leave("data.stop_tokens")
    return template


def _source(entry: Config, config: Config, template: str, streams: bool) -> dict[str, Any]:
    source: dict[str, Any] = {"path": str(entry.get("path"))}
    source |= _format(entry, config, template, streams)
    for key, field in (("name", "subset"), ("revision", "revision")):
        if entry.get(key) is not None:
            source[field] = entry[key]
    split = entry.get("split")
    if isinstance(split, str):
        first = FIRST_ROWS.fullmatch(split)
        if first and int(first[2]):
            source["samples"] = int(first[2])
            split = first[1]
        if split != "train":
            source["split"] = split
    kind = entry.get("ds_type")
    if kind and kind != DS_TYPES.get(PurePath(source["path"]).suffix):
        source["file_type"] = kind
    for option, key in OPTION_KEYS.items():
        if option == "train_roles" and entry.get(key) == ["assistant"]:
            continue
        if entry.get(key) is not None and not (option == "train_eos" and entry[key] == "turn"):
            source.setdefault(option, entry[key])
    return source


def _format(entry: Config, config: Config, template: str, streams: bool) -> dict[str, Any]:
    kind, rl = entry.get("type"), config.get("rl")
    reward = config.get("reward_model") or config.get("process_reward_model")
    if streams and kind in (None, "pretrain"):
        return {"format": "text", **_columns({"text": entry.get("text_column")}, {"text": "text"})}
    if isinstance(kind, Mapping):
        return _spelled_out(kind) if not rl else {"format": "custom"}
    if kind == "alpaca" and not rl:
        own = {} if template == ALPACA else {"chat_template": ALPACA}
        return {"format": "alpaca", **own}
    if kind == "completion" and not rl:
        return {"format": "text", **_columns({"text": entry.get("field")}, {"text": "text"})}
    if kind == "input_output" and not rl:
        return {"format": "pieces"}
    if kind == "chat_template" and not rl and not reward:
        return _chat(entry)
    if kind == "chat_template.default" and rl == "dpo":
        named = {role: entry.get(f"field_{role}") for role in ("messages", "chosen", "rejected")}
        return {"format": "preference", **_columns(named, {name: name for name in named})}
    columns: dict[str, Any] = {role: entry[key] for role, key in CUSTOM_KEYS if entry.get(key)}
    columns |= _properties(entry)
    result: dict[str, Any] = {"format": "custom"}
    if kind:
        result["handler"] = kind
    return result | ({"columns": columns} if columns else {})


def _properties(entry: Config) -> dict[str, Any]:
    names = options_of(entry.get("message_property_mappings"))
    return {role: names[role] for role in ("role", "content") if names.get(role)}


def _chat(entry: Config) -> dict[str, Any]:
    names = {"messages": entry.get("field_messages"), **_properties(entry)}
    shares = names.get("role") == "from" and names.get("content") == "value"
    usual = {"messages": "messages", "role": "role", "content": "content"}
    if shares:
        usual = {"messages": "conversations", "role": "from", "content": "value"}
        names["messages"] = names["messages"] or "messages"
    names |= {role: entry.get(key) for role, key in COLUMN_KEYS}
    result = {"format": "sharegpt" if shares else "messages", **_columns(names, usual)}
    roles = entry.get("roles")
    if isinstance(roles, Mapping):
        known = ("user", "assistant", "system", "tool")
        found = {role: roles[role] for role in known if roles.get(role)}
        if found:
            result["roles"] = found
    return result


def _spelled_out(kind: Config) -> dict[str, Any]:
    names = {role: kind.get(f"field_{role}") for role in ("instruction", "input", "output")}
    columns = _columns({**names, "system": kind.get("field_system")}, {n: n for n in names})
    if kind.get("field_input") == "":
        columns.setdefault("columns", {})["input"] = None
    prompt = {
        "text": kind.get("format"),
        "text_without_input": kind.get("no_input_format"),
        "system": kind.get("system_prompt"),
        "system_text": kind.get("system_format"),
    }
    prompt = {key: value for key, value in prompt.items() if value is not None}
    return {"format": "alpaca", **columns, "prompt": prompt}


def _columns(names: Config, usual: Config) -> dict[str, Any]:
    """Columns whose names are not the usual ones."""
    columns = {role: name for role, name in names.items() if name and name != usual.get(role)}
    return {"columns": columns} if columns else {}


def entries_of(config: Config, name: str) -> list[Config]:
    """The entries of a list of data sets, whatever else stands there."""
    found = config.get(name)
    return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []


def options_of(value: Any) -> Config:
    """A section as one, whatever else stands there."""
    return value if isinstance(value, Mapping) else {}
