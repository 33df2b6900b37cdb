"""What torch's elastic launcher reports when a process of it has failed.

Every rank fails once one has: the others lose their connection. The launcher knows which was the
first, and prints it last.
"""

import re
import signal
from dataclasses import dataclass

REPORT = re.compile(
    r"Root Cause \(first observed failure\):.{0,400}?host\s*: (?P<host>\S+)"
    r".{0,400}?rank\s*: (?P<rank>\d+).{0,400}?exitcode\s*: (?P<code>-?\d+)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class FirstFailure:
    """The rank that failed first, and how: an exit code, or a signal as a negative one."""

    rank: int
    host: str
    exit_code: int

    def __str__(self) -> str:
        how = f"ended with exit code {self.exit_code}"
        if self.exit_code < 0:
            how = f"was ended by {signal.Signals(-self.exit_code).name}"
        return f"rank {self.rank} on {self.host} {how}"


def first_failure(log: str) -> FirstFailure | None:
    """The launcher's report at the end of a log; of several nodes', one that names a signal."""
    found = [
        FirstFailure(int(match["rank"]), match["host"], int(match["code"]))
        for match in REPORT.finditer(log)
    ]
    killed = [failure for failure in found if failure.exit_code < 0]
    return next(iter(killed or found), None)
