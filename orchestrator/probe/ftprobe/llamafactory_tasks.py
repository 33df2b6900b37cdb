"""The tasks on LLaMA-Factory: its own functions, called with the rendered configuration."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import torchaudio_stub
from .backend_errors import backend_errors
from .deepspeed_cpu import plain_communication
from .errors import ProbeError
from .llamafactory_common import common_template, common_tokens
from .recorder import Recorder, callback
from .request import Request, Result, existing_path, optional_text, rank, text
from .versions import versions


def load_config(path: Path) -> dict[str, Any]:
    """The configuration as llamafactory's own command line reads it.

    PyYAML alone reads ``1e-4`` as a string; OmegaConf, which llamafactory uses, as a number.
    """
    from omegaconf import OmegaConf

    loaded = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(loaded, dict):
        raise ProbeError(f"{path} is not a mapping of settings.", hint="Check the file.")
    return {str(key): value for key, value in loaded.items()}


def preprocess(request: Request) -> Result:
    """Tokenize the data sets into ``prepared`` and save the tokenizer beside them.

    An existing result is removed first: llamafactory 0.9.5 loads whatever lies in
    ``tokenized_path``, even if the data or the template changed since.
    """
    config = load_config(existing_path(request, "config"))
    prepared = Path(text(request, "prepared"))
    for name in ("train", "validation", "dataset_dict.json", "tokenizer"):
        path = prepared / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    config["tokenized_path"] = str(prepared)
    config.pop("deepspeed", None)  # it needs torchrun, and tokenizing needs none
    torchaudio_stub.install()
    common = request.get("common")
    with common_tokens(common):
        return tokenize(config, prepared, common)


def tokenize(config: dict[str, Any], prepared: Path, common: Mapping[str, Any] | None) -> Result:
    """The body of :func:`preprocess`; with `common` in the way that both backends share."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    with backend_errors("Reading the configuration", "Compare it with `ft recipe plan`."):
        model_args, data_args, training_args, finetuning_args, _ = get_train_args(config)
        module = load_tokenizer(model_args)
        tokenizer = module["tokenizer"]
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
        template = common_template(template, tokenizer, common)
    stage = "rm" if finetuning_args.stage == "dpo" else finetuning_args.stage
    hint = "Check that every data file exists, is not empty, and has the columns the recipe names."
    with backend_errors("Preparing the data", hint):
        try:
            module = get_dataset(
                template, model_args, data_args, training_args, stage=stage, **module
            )
        except SystemExit:
            # Releases up to 0.9.3 end the process once the data is saved; 0.9.5 returns.
            module = reload_saved(prepared)
    train = module["train_dataset"]
    if len(train) == 0:
        raise ProbeError("No rows are left after tokenizing.", hint=hint)
    evaluation = module.get("eval_dataset")
    folder = prepared / "tokenizer"
    tokenizer.save_pretrained(str(folder))
    return {
        "dataset": {
            "train": str(prepared / "train"),
            "validation": validation_folders(prepared),
        },
        "rows": len(train),
        "validation_rows": count_rows(evaluation),
        "tokenizer": str(folder),
        "eos_ids": sorted(template.get_stop_token_ids(tokenizer)),
        "pad_id": tokenizer.pad_token_id,
        "bos_id": tokenizer.bos_token_id,
        "versions": versions(),
    }


def reload_saved(prepared: Path) -> Any:
    """The saved data, in the shape that ``get_dataset`` returns."""
    from datasets import load_from_disk
    from llamafactory.data.data_utils import get_dataset_module

    return get_dataset_module(load_from_disk(str(prepared)))


def validation_folders(prepared: Path) -> str | None:
    """The folder of the validation rows; the first one if there are several sets."""
    folders = sorted(prepared.glob("validation*"))
    return str(folders[0]) if folders else None


def count_rows(dataset: Any) -> int:
    """The rows of one evaluation set or of several by name."""
    if dataset is None:
        return 0
    if hasattr(dataset, "column_names") and not isinstance(dataset, dict):
        return len(dataset)
    return sum(len(part) for part in dataset.values())


def train(request: Request) -> Result:
    """Train as the configuration says; ``resume`` names a checkpoint folder.

    Resuming is only ever what the request says: left to itself, llamafactory 0.9.5 continues from
    the newest checkpoint in the output directory unless ``overwrite_output_dir`` is set.
    """
    config = load_config(existing_path(request, "config"))
    resume = str(existing_path(request, "resume")) if request.get("resume") else None
    config["resume_from_checkpoint"] = resume
    config["overwrite_output_dir"] = resume is None
    if request.get("dataset"):
        existing_path(request, "dataset")  # else llamafactory would tokenize again by itself
    events, stop = optional_text(request, "events"), optional_text(request, "stop")
    recorder = Recorder(Path(events) if events else None, Path(stop) if stop else None)

    torchaudio_stub.install()
    if config.get("deepspeed"):
        plain_communication()
    from llamafactory.train.tuner import run_exp

    with common_tokens(request.get("common")):
        run_exp(args=config, callbacks=[callback(recorder)])
    return recorder.result()


def merge(request: Request) -> Result:
    """Merge an adapter into the unquantized base and compare the result with base + adapter."""
    config = load_config(existing_path(request, "config"))
    output = Path(text(request, "output"))
    work = output.parent / f".{output.name}.merging"
    shutil.rmtree(work, ignore_errors=True)
    config.update(
        model_name_or_path=text(request, "base"),
        adapter_name_or_path=str(existing_path(request, "adapter")),
        export_dir=str(work),
    )
    # A quantized base cannot be merged into; llamafactory refuses it.
    for key in ("quantization_bit", "quantization_method", "quantization_type"):
        config.pop(key, None)
    try:
        export(config, request.get("common"))
        if rank() == 0:
            shutil.rmtree(output, ignore_errors=True)
            work.replace(output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    from .verify import only_model_files, verify

    only_model_files(output)
    return verify(request) if request.get("verify", True) else {"output": str(output)}


def export(config: dict[str, Any], common: Mapping[str, Any] | None) -> None:
    """Run llamafactory's export."""
    torchaudio_stub.install()
    from llamafactory.train.tuner import export_model

    hint = "The base must be the model that the adapter was trained on."
    with backend_errors("Merging", hint), common_tokens(common):
        export_model(config)
