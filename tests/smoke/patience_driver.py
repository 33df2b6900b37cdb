"""Trains what never gets better, with early stopping, and again from each of its checkpoints."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from ftprobe.recorder import Recorder, callback  # type: ignore[import-not-found]
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments


class Same(torch.nn.Module):  # type: ignore[misc]
    """A model whose loss is always 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
        """The loss."""
        return {"loss": 1 + 0 * self.weight.sum()}


def train(output: Path, resume: Path | None) -> int:
    """The step at which it ends; evaluated and saved at every second one."""
    rows = [{"x": torch.ones(2), "labels": torch.ones(1)}] * 40
    arguments = TrainingArguments(
        str(output), max_steps=20, per_device_train_batch_size=1, eval_strategy="steps",
        eval_steps=2, save_steps=2, load_best_model_at_end=True, use_cpu=True, report_to=[],
        metric_for_best_model="eval_loss", greater_is_better=False, disable_tqdm=True,
    )  # fmt: skip
    callbacks = [EarlyStoppingCallback(2), callback(Recorder(None))]
    trainer = Trainer(Same(), arguments, train_dataset=rows, eval_dataset=rows[:2],
                      callbacks=callbacks)  # fmt: skip
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return int(trainer.state.global_step)


output = Path(sys.argv[2])
found = [train(output, None), *(train(output, output / f"checkpoint-{n}") for n in (2, 4, 6))]
sys.stdout.write("FOUND " + json.dumps(found) + "\n")
