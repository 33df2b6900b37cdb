"""The tasks on axolotl: what its console scripts do, without them.

The console scripts start Python two or three times over (``axolotl train`` imports its command
line, then runs ``accelerate launch``, which starts the training module); each start costs seconds.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .axolotl_pairs import tokenize_pairs_as_judged
from .backend_errors import backend_errors
from .errors import ProbeError
from .recorder import Recorder
from .request import (
    Request,
    Result,
    existing_path,
    optional_text,
    rank,
    text,
)
from .versions import versions

PREPROCESS_FLAG = "AXOLOTL_IS_PREPROCESS"
PLUGIN = "ftprobe.axolotl_plugin.FtPlugin"
"""Added to every training: without it no events, no seed before the LoRA, no exact resume."""


@contextmanager
def own_debug_log() -> Iterator[None]:
    """Give each task its own ``debug.log``, and leave stdout alone.

    axolotl 0.19.0 opens ``output_dir/debug.log`` once per process, so a second task would write
    into the first one's file: it is closed here. Its copy of stdout is switched off, because
    ``utils.tee.close_debug_log`` deadlocks otherwise (it drops the last reference to the tee while
    holding the lock that the tee's closing flush needs); the stage's log has all of stdout anyway.
    """
    os.environ["AXOLOTL_TEE_STDOUT"] = "0"
    try:
        yield
    finally:
        from axolotl.utils.tee import close_debug_log

        close_debug_log()


@contextmanager
def preprocessing() -> Iterator[None]:
    """Set axolotl's preprocess flag for this task only.

    Saving happens in this process: axolotl 0.19.0 asks for at least one worker even for ten rows,
    and ``datasets`` then starts a pool and a manager by spawn to write one file. That costs
    seconds, and in a forked child the manager cannot start at all (EOFError).
    """
    from datasets import Dataset

    original = Dataset.save_to_disk

    def save_to_disk(self: Any, *args: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        several = num_proc if num_proc is not None and num_proc > 1 else None
        original(self, *args, num_proc=several, **kwargs)

    os.environ[PREPROCESS_FLAG] = "1"
    Dataset.save_to_disk = save_to_disk
    try:
        yield
    finally:
        Dataset.save_to_disk = original
        del os.environ[PREPROCESS_FLAG]


def accept_whole_validation_sizes() -> None:
    """Let preference data be split by a number of rows.

    axolotl 0.19.0 hands ``val_set_size: 20`` to ``train_test_split`` as 20.0 there, which is
    neither a count nor a share and is refused (``utils.data.rl`` lacks the conversion that
    ``utils.data.sft`` has).
    """
    from axolotl.utils.data import rl

    original = rl.create_train_validation_split
    if getattr(original, "by_ft", False):
        return

    def split(dataset: Any, cfg: Any, size: float) -> Any:
        return original(dataset, cfg, int(size) if size > 1 else size)

    split.by_ft = True  # type: ignore[attr-defined]
    rl.create_train_validation_split = split


def saved_dataset(cfg: Any, datasets: Any, tokenizer: Any) -> str | None:
    """Where axolotl put the prepared rows: a folder named after a hash of the configuration."""
    from axolotl.utils.data.shared import (
        generate_dataset_hash_from_config,
        get_prepared_dataset_path,
    )

    if not datasets:
        return None
    digest = generate_dataset_hash_from_config(cfg, datasets, tokenizer.name_or_path)
    return str(get_prepared_dataset_path(cfg, digest))


def stop_ids(cfg: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a turn in the training data: EOS and the declared ``eot_tokens``."""
    tokens = [tokenizer.eos_token, *(cfg.eot_tokens or [])]
    ids = tokenizer.convert_tokens_to_ids([token for token in tokens if token])
    return list(dict.fromkeys(ids))


def preprocess(request: Request) -> Result:
    """Tokenize the data sets into ``prepared`` and save the tokenizer beside them."""
    config = existing_path(request, "config")
    prepared = Path(text(request, "prepared"))
    with preprocessing(), own_debug_log():
        return tokenize(config, prepared)


def tokenize(config: Path, prepared: Path) -> Result:
    """The body of :func:`preprocess`, with axolotl's flags set."""
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets, load_preference_datasets
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.trainer import disable_datasets_caching

    with backend_errors("Reading the configuration", "Compare it with `ft recipe plan`."):
        cfg = load_cfg(
            str(config),
            dataset_prepared_path=str(prepared),
            is_preprocess=True,
            deepspeed=None,  # tokenizing takes one process
        )
    cfg.is_preprocess = True
    if cfg.pretraining_dataset or cfg.skip_prepare_dataset or cfg.streaming:
        raise ProbeError(
            "This configuration streams its data, so there is nothing to preprocess.",
            hint="Leave the preprocess stage out.",
        )
    hint = "Check that every data file exists, is not empty, and has the columns the recipe names."
    with backend_errors("Preparing the data", hint), disable_datasets_caching():
        accept_whole_validation_sizes()
        load = load_preference_datasets if cfg.rl else load_datasets
        meta = load(cfg=cfg)
    rows = len(meta.train_dataset)
    if rows == 0:
        raise ProbeError(
            "No rows are left after tokenizing.",
            hint="Every row was empty or longer than sequence_len: check the data and its format.",
        )
    tokenizer = load_tokenizer(cfg)
    folder = prepared / "tokenizer"
    tokenizer.save_pretrained(str(folder))
    return {
        "dataset": {
            "train": saved_dataset(cfg, cfg.datasets, tokenizer),
            "validation": saved_dataset(cfg, cfg.test_datasets, tokenizer),
        },
        "rows": rows,
        "validation_rows": len(meta.eval_dataset) if meta.eval_dataset is not None else 0,
        "tokenizer": str(folder),
        "eos_ids": stop_ids(cfg, tokenizer),
        "pad_id": tokenizer.pad_token_id,
        "bos_id": tokenizer.bos_token_id,
        "versions": versions(),
    }


def train(request: Request) -> Result:
    """Train as the configuration says; ``resume`` names a checkpoint folder."""
    config = existing_path(request, "config")
    resume = str(existing_path(request, "resume")) if request.get("resume") else None
    events, stop = optional_text(request, "events"), optional_text(request, "stop")
    recorder = Recorder(Path(events) if events else None, Path(stop) if stop else None)
    with own_debug_log():
        run_training(config, resume, recorder, optional_text(request, "dataset"))
    return recorder.result()


def with_own_plugin(config: Path) -> list[str]:
    """The configuration's plugins and ours: no events, seeds or exact resume without it."""
    import yaml

    named = yaml.safe_load(config.read_text(encoding="utf-8")).get("plugins") or []
    return [*(name for name in named if name != PLUGIN), PLUGIN]


def only_on(prepared: str, cfg: Any) -> None:
    """Refuse to train on anything but the rows that were prepared and judged.

    axolotl looks for a folder named by a hash of its own, in which the data's path and the base's
    are; where it finds none it tokenizes again, silently and in every rank.
    """
    from axolotl.loaders import load_tokenizer

    found = saved_dataset(cfg, cfg.datasets, load_tokenizer(cfg))
    if found != prepared:
        raise ProbeError(
            f"The prepared data is in {prepared}, but axolotl would look in {found}.",
            hint="Prepare it again: `ft preprocess` on this run.",
        )


def run_training(
    config: Path, resume: str | None, recorder: Recorder, prepared: str | None = None
) -> None:
    """The body of :func:`train`.

    Resuming is only ever what the request says: ``auto_resume_from_checkpoints`` would pick up
    whatever an earlier run left in the output directory.
    """
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import do_train

    from .axolotl_plugin import session

    session.recorder = recorder
    try:
        with backend_errors("Reading the configuration", "Compare it with `ft recipe plan`."):
            cfg = load_cfg(
                str(config),
                plugins=with_own_plugin(config),
                resume_from_checkpoint=resume,
                auto_resume_from_checkpoints=False,
            )
        accept_whole_validation_sizes()
        if prepared:
            only_on(prepared, cfg)
        if cfg.rl in ("dpo", "ipo"):
            tokenize_pairs_as_judged()
        do_train(cfg, TrainerCliArgs())
        if cfg.adapter and not cfg.relora and rank() == 0:
            drop_stray_weights(Path(cfg.output_dir))
    finally:
        session.recorder = None


def drop_stray_weights(output: Path) -> None:
    """Remove a full-model file that lies beside an adapter.

    axolotl 0.19.0 saves KTO adapters twice, the second time as ``model.safetensors`` with the
    adapter's names inside; transformers would load that file as the model.
    """
    if (output / "adapter_model.safetensors").is_file():
        (output / "model.safetensors").unlink(missing_ok=True)


def merge(request: Request) -> Result:
    """Merge an adapter into the unquantized base and compare the result with base + adapter."""
    from .verify import only_model_files, verify

    config = existing_path(request, "config")
    adapter = existing_path(request, "adapter")
    output = Path(text(request, "output"))
    work = output.parent / f".{output.name}.merging"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with own_debug_log():
            merge_into(config, adapter, text(request, "base"), work)
        if rank() == 0:
            shutil.rmtree(output, ignore_errors=True)
            (work / "merged").replace(output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    only_model_files(output)
    return verify(request) if request.get("verify", True) else {"output": str(output)}


def merge_into(config: Path, adapter: Path, base: str, work: Path) -> None:
    """Run axolotl's legacy merge into ``work/merged``.

    The default ``memory_efficient`` method of axolotl 0.19.0 quantizes every matrix of the base to
    nf4 first when the adapter was trained with QLoRA, embeddings included and without double
    quantization; on a test model it was off by 1.3e-1 where the legacy method was off by 3e-7.
    """
    from axolotl.cli.config import load_cfg
    from axolotl.cli.merge_lora import do_merge_lora

    with backend_errors("Merging", "The base must be the model that the adapter was trained on."):
        cfg = load_cfg(
            str(config),
            base_model=base,
            lora_model_dir=str(adapter),
            output_dir=str(work),
            merge_lora=True,
            merge_method="legacy",
            load_in_8bit=False,
            load_in_4bit=False,
            quantize_moe_experts=False,
            attn_implementation=None,
            context_parallel_size=None,
            deepspeed=None,
            fsdp=None,
            fsdp_config=None,
            plugins=None,
        )
        do_merge_lora(cfg=cfg)
