"""The axolotl plugin: seeds, callbacks, and several processes on a CPU.

A configuration names it as ``plugins: [ftprobe.axolotl_plugin.FtPlugin]``. axolotl makes the
instance itself, so what the plugin needs from the task is left in ``session``.
"""

import signal
from typing import Any

from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback, set_seed

from . import axolotl_cpu
from .recorder import Recorder, callback


class Session:
    """What the running task lends to the plugin."""

    recorder: Recorder | None = None


session = Session()


class KeepInterrupts(TrainerCallback):  # type: ignore[misc]
    """Undo axolotl's SIGINT handler when training starts.

    axolotl 0.19.0 (``train.setup_signal_handler``) saves the half-trained model over the output
    directory and exits with 0, so an interrupted run would look finished.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class FtPlugin(BasePlugin):  # type: ignore[misc]
    """Hooks into a training run; does nothing while preprocessing or merging."""

    def register(self, cfg: Any) -> None:
        """Prepare for several CPU processes, before accelerate's state exists."""
        axolotl_cpu.enable()

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """The only hook between axolotl's choice of a device map and its use."""
        axolotl_cpu.fix_device_map(cfg)

    def pre_model_load(self, cfg: Any) -> None:
        """Seed before weights are drawn (resized embeddings, value heads)."""
        set_seed(cfg.seed if cfg.seed is not None else 42)

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Seed before the adapter's weights are drawn.

        axolotl 0.19.0 seeds only in the trainer, later: two runs with one ``seed`` start from
        different adapters, and a resumed run cannot be compared with an uninterrupted one.
        """
        set_seed(cfg.seed if cfg.seed is not None else 42)

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Record the training of the current task."""
        if session.recorder is None:
            return []
        return [callback(session.recorder), KeepInterrupts()]
