"""A port for the processes of a job to meet on, chosen in the job on its first node."""

import socket

FIRST, COUNT = 20000, 12000


def port(job_id: int) -> int:
    """A free port of this node, which no other job on it would choose.

    Two jobs on a node have different ids and so start looking at different ports. The range lies
    below the one from which the system gives ports to connections (32768 on Linux), so that none
    of those takes it between this look and the launcher's own.

    Raises:
        OSError: not one port of the range is free.
    """
    for step in range(COUNT):
        candidate = FIRST + (job_id + step) % COUNT
        if _free(candidate):
            return candidate
    raise OSError(f"no port from {FIRST} to {FIRST + COUNT - 1} is free")


def _free(candidate: int) -> bool:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if family == socket.AF_INET6:  # as torch's store does: one socket for both
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", candidate))
            probe.listen()
        except OSError:
            return False
    return True
