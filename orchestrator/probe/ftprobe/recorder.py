"""What a training run reports while it runs, the same for both backends.

Both backends drive a ``transformers.Trainer``, so one callback serves both. It appends one JSON
line per trainer event and keeps the few numbers the result needs. The backends' own logs are no
substitute: axolotl 0.19.0 prints losses as four-digit strings and leaves no trainer_state.json
behind, llamafactory 0.9.5 writes other names.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import know_numbered_cpus, list_files, rotate_by_step
from .patience import keep_patience
from .request import Result, rank

NUMBERS = ("loss", "learning_rate", "grad_norm")


def number(value: object) -> float | int | None:
    """A metric as a plain number: trainers hand out tensors, NumPy scalars and numeric strings."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", 1) is not None:
        try:
            return number(item())
        except (RuntimeError, ValueError):  # a tensor of several elements
            return None
    return None


class Recorder:
    """Writes events and remembers what the result needs."""

    def __init__(self, events: Path | None, stop: Path | None = None) -> None:
        self.path = events if rank() == 0 else None
        self.stop = StopFile(stop)
        self.started: float | None = None
        self.ended = 0.0
        self.first_step = 0
        self.peak: dict[str, int | None] | None = None
        self.seen: Result = {
            "global_step": 0,
            "max_steps": 0,
            "train_loss": None,
            "first_loss": None,
            "last_loss": None,
            "output_dir": None,
            "world_size": 1,
        }

    def write(self, event: dict[str, Any]) -> None:
        """Append one line and let it reach the file at once: a reader follows it live.

        The file is opened for each line, so a line is either there or not when the process is
        killed, and nothing is held open across a fork. Where it cannot be written (a full disk, a
        server that is away for a moment), the line is lost, and not the training.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, json.dumps(event))
        except OSError as error:
            with contextlib.suppress(OSError):  # the log may be on the same disk
                print(f"ft: an event was not recorded: {error}", file=sys.stderr)

    def record(
        self,
        event: str,
        args: Any,
        state: Any,
        logs: dict[str, Any] | None = None,
        work: "Work | None" = None,
    ) -> None:
        """Note one trainer event; ``work`` is what was computed since the previous log."""
        self.ended = time.monotonic()
        if self.started is None:
            self.started, self.first_step = self.ended, state.global_step
        values = {key: number(value) for key, value in (logs or {}).items()}
        metrics = {key: value for key, value in values.items() if value is not None}
        line: dict[str, Any] = {
            "t": time.time(),
            "event": event,
            "step": state.global_step,
            "max_steps": state.max_steps,
            "epoch": number(state.epoch),
            "world_size": args.world_size,
        }
        line.update({key: metrics.pop(key, None) for key in NUMBERS})
        line["tokens"] = work.tokens if work else None
        line["tokens_per_second"] = work.tokens / work.seconds if work and work.seconds else None
        metrics.pop("epoch", None)
        line["metrics"] = metrics
        self.write(line)
        self.seen.update(
            global_step=state.global_step,
            max_steps=state.max_steps,
            world_size=args.world_size,
            output_dir=str(args.output_dir),
        )
        if line["loss"] is not None:
            if self.seen["first_loss"] is None:
                self.seen["first_loss"] = line["loss"]
            self.seen["last_loss"] = line["loss"]
        if "train_loss" in metrics:
            self.seen["train_loss"] = self.mean_loss(metrics["train_loss"], state.global_step)

    def mean_loss(self, reported: float, step: int) -> float:
        """The mean loss of the steps that this process made.

        The trainer divides by all steps also after a resume, when it has summed only the later
        ones (transformers 5.6.0 and 5.16.1, ``Trainer._finalize_training``): a run resumed at step
        50 of 60 would report a sixth of its loss.
        """
        made = step - self.first_step
        return reported * step / made if made > 0 else reported

    def result(self) -> Result:
        """The numbers of the finished training; the time runs from its begin to its end."""
        return {
            **self.seen,
            "peak_memory": self.peak or peak_memory(),
            "runtime_seconds": self.ended - (self.started or self.ended),
        }


def append_line(path: Path, line: str) -> None:
    """Append a line; one that was cut short before it does not take it along."""
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else f"\n{line}"
        stream.write(f"{line}\n".encode())


def peak_memory() -> dict[str, int | None]:
    """The most memory this process held, in bytes: host always, CUDA where there is a device."""
    import resource

    import torch

    peak: dict[str, int | None] = {
        "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "cuda_allocated": None,
        "cuda_reserved": None,
    }
    if torch.cuda.is_available():
        peak["cuda_allocated"] = int(torch.cuda.max_memory_allocated())
        peak["cuda_reserved"] = int(torch.cuda.max_memory_reserved())
    return peak


def peak_over_ranks(device: Any) -> dict[str, int | None]:
    """The largest peak of any rank: the one that decides whether a run fits.

    Every rank must call this at the same place.
    """
    import torch
    from torch import distributed

    own = peak_memory()
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    largest = torch.tensor([value or 0 for value in own.values()], dtype=torch.int64, device=device)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return {name: int(value) or None for name, value in zip(own, largest.tolist(), strict=True)}


@dataclass(frozen=True)
class Work:
    """Tokens trained on all ranks together, and the seconds that took."""

    tokens: int
    seconds: float


class TokenMeter:
    """Tokens per second of training, over all ranks, counted where the model sees them.

    A forward pre-hook on the model counts the positions of each training batch that are not
    padding: those whose two-dimensional attention mask is not zero, which also holds for masks that
    number packed samples 1, 2, 3. Without such a mask (packed batches, block-diagonal
    four-dimensional masks) every position counts. Preference training counts the chosen and the
    rejected sequence, since both are computed; passes without gradients (reference model,
    evaluation) do not count. Time is from step to step and leaves out evaluation and saving.

    The trainer's own ``num_input_tokens_seen`` is not used: "non_padding" sums the attention mask,
    which is wrong for the packing masks of both backends (transformers 5.6.0 and 5.16.1,
    ``Trainer._track_num_input_tokens``), and "all" counts padding as work done. axolotl 0.19.0's
    ``tokens/*`` count is not used either, because llamafactory has none to compare it with.
    """

    def __init__(self) -> None:
        self.tokens: Any = 0
        self.busy = 0.0
        self.mark = time.perf_counter()

    def watch(self, model: Any) -> None:
        """Start counting at this model."""
        model.register_forward_pre_hook(self.count, with_kwargs=True)
        self.pause()

    def count(self, module: Any, positional: Any, named: dict[str, Any]) -> None:
        """Add one batch. The count stays on the device: reading it would wait for the GPU."""
        import torch

        if not (module.training and torch.is_grad_enabled()):
            return
        tokens = named.get("input_ids")
        if tokens is None:
            tokens = positional[0] if positional else named.get("inputs_embeds")
        mask: Any = named.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:
            self.tokens = self.tokens + (mask != 0).sum()
        elif tokens is not None:
            self.tokens = self.tokens + tokens.shape[0] * tokens.shape[1]

    def pause(self) -> None:
        """Start the next interval now: what happened since the last step was not training."""
        self.mark = time.perf_counter()

    def step(self) -> None:
        """Close the interval of one optimizer step."""
        now = time.perf_counter()
        self.busy += now - self.mark
        self.mark = now

    def read(self, device: Any) -> Work:
        """The work since the last reading, summed over the ranks.

        Every rank must call this at the same place. It is called from ``on_log``, where the trainer
        itself has just gathered the loss from all ranks.
        """
        import torch
        from torch import distributed

        total = torch.as_tensor(self.tokens, dtype=torch.int64, device=device).clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        busy, self.busy, self.tokens = self.busy, 0.0, 0
        return Work(int(total.item()), busy)


class StopFile:
    """A file by which a training is asked to save a checkpoint and end, at a step's end.

    No signal: it would have to pass through srun and torch's launcher, which dies of it, and
    would end compilers and trackers that the backend has started.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def asked(self, device: Any) -> bool:
        """Whether to end now. Every rank must call this at the same place: rank 0 looks for all,
        so that all end at the same step."""
        import torch
        from torch import distributed

        if self.path is None:
            return False
        there = rank() == 0 and self.path.exists()
        if not (distributed.is_available() and distributed.is_initialized()):
            return there
        answer = torch.tensor([int(there)], device=device)
        distributed.all_reduce(answer)
        return bool(answer.item())


def wait_for_all(device: Any) -> None:
    """Go on when every rank is here. Every rank must call this at the same place."""
    import torch
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        answer = torch.zeros(1, device=device)
        distributed.all_reduce(answer)
        answer.item()  # on a GPU only this waits


def callback(recorder: Recorder) -> Any:
    """A Trainer callback that feeds the recorder."""
    from transformers import TrainerCallback

    rotate_by_step()
    know_numbered_cpus()
    keep_patience()

    class Record(TrainerCallback):  # type: ignore[misc]
        """One method per trainer event."""

        def __init__(self) -> None:
            self.meter = TokenMeter()
            self.saved: int | None = None

        def seal(self, args: Any) -> None:
            """List what was saved, once all ranks and all callbacks are done with it."""
            if self.saved is not None:
                wait_for_all(args.device)
                list_files(Path(args.output_dir) / f"checkpoint-{self.saved}", self.saved)
                self.saved = None

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            # A checkpoint brings its micro batch along, and axolotl 0.19.0 packs evaluation
            # batches by it, which the memory that it was lowered for may not hold.
            if not args.auto_find_batch_size:
                state.train_batch_size = args.train_batch_size
            recorder.record("train_begin", args, state)
            if model is not None:
                self.meter.watch(model)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seal(args)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.meter.step()
            if recorder.stop.asked(args.device) and state.global_step < state.max_steps:
                control.should_save = True
                control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            values = dict(logs or {})
            if any(key.startswith("eval_") for key in values):
                return  # the trainer logs an evaluation, too; on_evaluate records it
            work = self.meter.read(args.device) if "loss" in values else None
            recorder.record("log", args, state, values, work)

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
        ) -> None:
            self.meter.pause()
            recorder.record("evaluate", args, state, dict(metrics or {}))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.meter.pause()
            recorder.record("save", args, state)
            self.saved = state.global_step

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seal(args)
            recorder.record("train_end", args, state)
            recorder.peak = peak_over_ranks(args.device)

    return Record()
