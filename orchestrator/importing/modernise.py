"""Old spellings that a backend still accepts, or once did, in the words of the pinned release."""

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.backends.keys import load_keys
from orchestrator.findings import Finding
from orchestrator.recipe.yaml_source import Document

ATTENTION = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
RENAMED = {
    "axolotl": {
        "evaluation_strategy": "eval_strategy",
        "dataset_processes": "dataset_num_proc",
        "noisy_embedding_alpha": "neftune_noise_alpha",
        "pretrain_multipack_buffer_size": "streaming_multipack_buffer_size",
        "gc_steps": "gc_collect_steps",
        "sequence_parallel_degree": "context_parallel_size",
        "revision_of_model": "model_revision",
        "type_of_model": "model_type",
        "overrides_of_model_config": "model_config",
        "overrides_of_model_kwargs": "model_kwargs",
        "dpo_beta": "rl_beta",
    },
    "llamafactory": {
        "evaluation_strategy": "eval_strategy",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "checkpoint_dir": "adapter_name_or_path",
        "dpo_beta": "pref_beta",
        "orpo_beta": "pref_beta",
        "dpo_loss": "pref_loss",
        "dpo_ftx": "pref_ftx",
        "new_special_tokens": "add_special_tokens",
        "image_resolution": "image_max_pixels",
        "video_resolution": "video_max_pixels",
        "num_layer_trainable": "freeze_trainable_layers",
        "name_module_trainable": "freeze_trainable_modules",
    },
}
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


class Modern:
    """Rewrites a configuration and notes each change (`FT512`)."""

    def __init__(self, backend: str, document: Document) -> None:
        self.backend = backend
        self.document = document
        self.notes: list[Finding] = []

    def note(self, key: str, message: str) -> None:
        """Tell one change."""
        place = self.document.place((key,), key=True)
        self.notes.append(Finding("FT512", "note", message, place, field=key))

    def names(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Keys by their present names; before unknown ones are looked for."""
        renamed = RENAMED[self.backend]
        result: dict[str, Any] = {}
        for key, value in config.items():
            new = renamed.get(key, key)
            if new != key and config.get(new) is not None:
                self.note(key, f"{key} is another name of {new}, which is there too: left out")
                continue
            if new != key:
                self.note(key, f"{key} is now {new}")
            result[new] = value
        if self.backend == "llamafactory" and "group_by_length" in result:
            grouped = result.pop("group_by_length")
            self.note("group_by_length", "group_by_length is now train_sampling_strategy")
            if grouped is True:
                result["train_sampling_strategy"] = "group_by_length"
        return result

    def values(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the release reads them, old forms in new ones."""
        result = self._truths(self._numbers(config))
        if self.backend == "axolotl":
            self._preference(result)
            self._attention(result)
            self._checkpointing(result)
            self._fsdp(result)
            for name in ("datasets", "test_datasets", "pretraining_dataset"):
                self._datasets(result, name)
            return result
        if result.get("template") == "default":
            self.note("template", "template: default is a plain one; the model's own name is safer")
        if isinstance(result.get("flash_attn"), bool):
            new = "fa2" if result["flash_attn"] else "disabled"
            self.note("flash_attn", f"flash_attn: {str(result['flash_attn']).lower()} is {new}")
            result["flash_attn"] = new
        if result.get("stage") == "orpo":
            self.note("stage", "stage: orpo is stage: dpo with pref_loss: orpo")
            result |= {"stage": "dpo", "pref_loss": "orpo"}
        if result.get("fp16") is True:
            self.note("fp16", "fp16: true is model.dtype: float16")
        config_ = result.get("fsdp_config")
        if isinstance(config_, Mapping):
            result["fsdp_config"] = {
                key if key == "fsdp_version" else key.removeprefix("fsdp_"): value
                for key, value in config_.items()
            }
        return result

    def _numbers(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers in quotes; axolotl converts them, LLaMA-Factory computes with the text."""
        keys = load_keys(self.backend)["keys"]
        result = dict(config)
        for key, value in config.items():
            kinds = str(keys.get(key, {}).get("type", "")).split(" | ")
            numeric = {"int", "float"} & set(kinds)
            if isinstance(value, str) and numeric and NUMBER.fullmatch(value.strip()):
                if "str" in kinds and key != "learning_rate":
                    continue
                number = float(value)
                result[key] = (
                    int(number) if "float" not in kinds and number.is_integer() else number
                )
                self.note(key, f"{key}: {value!r} is text; taken as the number it means")
            elif isinstance(value, float) and kinds[0] == "int" and value.is_integer():
                result[key] = int(value)
        return result

    def _truths(self, config: dict[str, Any]) -> dict[str, Any]:
        """Truth values in quotes; LLaMA-Factory takes any text for true."""
        keys = load_keys(self.backend)["keys"]
        words = {"true": True, "false": False}
        for key, value in config.items():
            kinds = str(keys.get(key, {}).get("type", "")).split(" | ")
            if isinstance(value, str) and "bool" in kinds and value.lower() in words:
                config[key] = words[value.lower()]
                self.note(key, f"{key}: {value!r} is text; taken as the truth value it means")
        return config

    def _preference(self, config: dict[str, Any]) -> None:
        if config.get("rl") == "ipo" and config.get("dpo_loss_type") in (None, "ipo", ["ipo"]):
            self.note("rl", "rl: ipo is rl: dpo with dpo_loss_type: [ipo]")
            config |= {"rl": "dpo", "dpo_loss_type": ["ipo"]}

    def _attention(self, config: dict[str, Any]) -> None:
        flags = [flag for flag in ATTENTION if config.get(flag) is True]
        for flag in ATTENTION:
            config.pop(flag, None)
        if flags and not config.get("attn_implementation"):
            config["attn_implementation"] = ATTENTION[flags[0]]
            self.note(flags[0], f"{flags[0]}: true is attn_implementation: {ATTENTION[flags[0]]}")

    def _checkpointing(self, config: dict[str, Any]) -> None:
        old = config.get("gradient_checkpointing")
        if old in ("offload", "offload_disk"):
            new = True if old == "offload" else "disk"
            config |= {"gradient_checkpointing": True, "activation_offloading": new}
            shown = "true" if new is True else new
            self.note(
                "gradient_checkpointing",
                f"gradient_checkpointing: {old} is true with activation_offloading: {shown}",
            )

    def _fsdp(self, config: dict[str, Any]) -> None:
        inner = config.get("fsdp_config")
        if not isinstance(inner, Mapping):
            return
        plain = {key if key == "fsdp_version" else key.removeprefix("fsdp_"): value
                 for key, value in inner.items()}  # fmt: skip
        if set(plain) != set(inner):
            self.note("fsdp_config", "keys of fsdp_config have no prefix fsdp_ any more")
        nested = [plain.pop(key) for key in ("fsdp_version", "version") if key in plain]
        if nested and config.get("fsdp_version") is None:
            config["fsdp_version"] = nested[0]
        config["fsdp_config"] = plain

    def _datasets(self, config: dict[str, Any], name: str) -> None:
        entries = config.get(name)
        if isinstance(entries, str):
            entries = [{"path": entries}]
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, list):
            return
        if entries != config[name]:
            self.note(name, f"{name} is a list of entries")
        config[name] = [
            self._entry(dict(entry), name) if isinstance(entry, Mapping) else entry
            for entry in entries
        ]

    def _entry(self, entry: dict[str, Any], name: str) -> dict[str, Any]:
        kind = entry.get("type")
        if isinstance(kind, str) and re.match(r"sharegpt(\W|$)", kind):
            self.note(name, f"type: {kind} is chat_template with from and value")
            entry["type"] = "chat_template"
            entry.setdefault("field_messages", "conversations")
            entry.setdefault("message_property_mappings", {"role": "from", "content": "value"})
        talk = entry.pop("conversation", None)
        if talk:
            self.note(name, f"conversation: {talk} is chat_template: {talk}")
            entry.setdefault("chat_template", talk)
        for old, role in (("message_field_role", "role"), ("message_field_content", "content")):
            if entry.get(old):
                self.note(name, f"{old} is message_property_mappings.{role}")
                mappings = entry.get("message_property_mappings")
                mapped = dict(mappings) if isinstance(mappings, Mapping) else {}
                mapped.setdefault(role, entry.pop(old))
                entry["message_property_mappings"] = mapped
        return entry
