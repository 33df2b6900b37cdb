"""Turning what a backend refuses into something to act on."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ProbeError


@contextmanager
def backend_errors(doing: str, hint: str) -> Iterator[None]:
    """Report a backend's refusal as a :class:`ProbeError`.

    The types are those that both backends raise for bad input. The traceback goes to stderr, and so
    into the stage's log, since the message alone may not name the place.
    """
    try:
        yield
    except ProbeError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        traceback.print_exc()
        raise ProbeError(f"{doing} failed: {type(error).__name__}: {error}", hint) from error
