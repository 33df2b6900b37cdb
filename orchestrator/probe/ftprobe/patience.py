"""Early stopping that counts on after a resume."""

from typing import Any


def keep_patience() -> None:
    """Let early stopping go on from the count in the checkpoint.

    transformers 5.6.0 and 5.16.1 write it there and read it only for
    ``restore_callback_states_from_checkpoint``, which makes new callbacks. Without it a resumed
    training has its whole patience again and ends later, with another model; one that was killed
    after its early end, while it saved the model, trains on. Now that one ends after a step, and
    with the best model if it was to keep that.
    """
    from transformers import EarlyStoppingCallback

    begin: Any = EarlyStoppingCallback.on_train_begin
    if getattr(begin, "remembers", False):
        return

    def on_train_begin(self: Any, args: Any, state: Any, control: Any, **named: Any) -> None:
        begin(self, args, state, control, **named)
        stored = state.stateful_callbacks.get(type(self).__name__) or {}
        found = stored[0] if isinstance(stored, list) else stored
        count = found.get("attributes", {}).get("early_stopping_patience_counter", 0)
        self.early_stopping_patience_counter = count
        if count >= self.early_stopping_patience:
            control.should_training_stop = True

    on_train_begin.remembers = True  # type: ignore[attr-defined]
    EarlyStoppingCallback.on_train_begin = on_train_begin
