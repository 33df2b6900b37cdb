"""The one tree of errors that users are meant to see.

Every error carries what happened, why or where, and what to do about it; its class decides the
exit code of `ft`. The command line catches `FtError` once (`cli.main`), anything else is a bug
of ours and leaves with `Exit.BUG`. This module imports nothing, so that everyone may import it.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `ft`, as documented in the README."""

    OK = 0
    USAGE = 2
    CHECK = 3
    ENVIRONMENT = 4
    BACKEND = 5
    LAUNCH = 6
    LABELS = 7
    ARTIFACT = 8
    JOB = 9
    BUG = 70
    SUSPENDED = 75
    INTERRUPTED = 130


class FtError(Exception):
    """A failure with a cause that the user can act on.

    `message` says what went wrong, `hint` how to fix it, `detail` is quoted below (the last lines
    of a log, a command), `where` is a `file:line:column` when there is one.
    """

    exit_code: Exit = Exit.BUG

    def __init__(self, message: str, *, hint: str = "", detail: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        self.where = where


class UsageError(FtError):
    """The command line or the recipe cannot be understood."""

    exit_code = Exit.USAGE


class BackendEnvironmentError(FtError):
    """A backend environment is missing, broken or cannot be made."""

    exit_code = Exit.ENVIRONMENT


class BackendError(FtError):
    """A backend process ended with an error."""

    exit_code = Exit.BACKEND


class LaunchError(FtError):
    """A process could not be started, or not with the ranks it should have."""

    exit_code = Exit.LAUNCH


class LabelError(FtError):
    """The label report says that the wrong tokens, or none, would be trained."""

    exit_code = Exit.LABELS


class ArtifactError(FtError):
    """A stage ended well but what it left behind is not what it must be."""

    exit_code = Exit.ARTIFACT


class RunInterrupted(FtError):
    """The user pressed Ctrl-C or sent SIGTERM."""

    exit_code = Exit.INTERRUPTED


class JobError(FtError):
    """The scheduler ended a job, or never started it: time limit, memory, a node, a dependency."""

    exit_code = Exit.JOB


class Suspended(FtError):
    """Training saved a checkpoint and ended before its job's time limit; it goes on from there."""

    exit_code = Exit.SUSPENDED
