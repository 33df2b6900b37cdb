"""Signals that end a run as Ctrl-C does: children first, then the record."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, raise `KeyboardInterrupt` here.

    Under `nohup` a closed terminal means nothing.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(_others(), interrupt):
        yield


@contextlib.contextmanager
def interrupts_later() -> Iterator[Callable[[], None]]:
    """All that would interrupt waits until the given function is called, which raises it then.

    For steps of which it must be known afterwards whether they were done.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    def due() -> None:
        if came:
            raise KeyboardInterrupt

    with _handled([signal.SIGINT, *_others()], remember):
        yield due


def _others() -> list[signal.Signals]:
    """What ends a run besides Ctrl-C."""
    hung_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGTERM, *hung_up]


@contextlib.contextmanager
def _handled(
    numbers: list[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
