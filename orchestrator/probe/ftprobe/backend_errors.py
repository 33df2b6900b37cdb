"""Turning what a backend refuses into something to act on."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ProbeError

# What both backends raise for bad input. pydantic's ValidationError is a ValueError; StopIteration
# is what axolotl 0.19.0 ends with when it looks at the first row of an empty file.
REFUSALS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    StopIteration,
)


def is_refusal(error: Exception) -> bool:
    """Is this about the input? ``datasets`` has an error tree of its own."""
    return isinstance(error, REFUSALS) or type(error).__module__.startswith("datasets.")


def explain(error: BaseException) -> str:
    """The message with its reason: ``datasets`` hides a JSON error under "An error occurred"."""
    problems = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and callable(problems):
        return "; ".join(explain_field(problem) for problem in problems())
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, KeyError):
        text = f"{error} is missing"
    if isinstance(error, StopIteration):
        text = "there is not one row"
    reason = error.__cause__
    if reason is None or type(reason).__name__ == "RemoteTraceback":  # the worker's, in the log
        return text
    return f"{text} ({explain(reason)})"


def explain_field(problem: Any) -> str:
    """One of pydantic's findings, without the dump of the whole input."""
    place = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


@contextmanager
def backend_errors(doing: str, hint: str) -> Iterator[None]:
    """Report a backend's refusal as a :class:`ProbeError`.

    The traceback goes to stderr, and so into the stage's log: the message alone may not name the
    place.
    """
    try:
        yield
    except ProbeError:
        raise
    except Exception as error:
        if not is_refusal(error):
            raise
        traceback.print_exc()
        raise ProbeError(f"{doing} failed: {explain(error)}", hint) from error
