"""Processes of a stage on this machine.

One process is started directly; several, or DeepSpeed, through torch's elastic launcher, which
both backends accept and which takes a script path with spaces (accelerate's does not start more
than one CPU process and exits 0 all the same).
"""

from collections.abc import Sequence


def command(
    python: str, script: str, request: str, *, processes: int = 1, elastic: bool = False, id: str
) -> tuple[str, ...]:
    """The argument list that runs `script request` in `processes` processes.

    The rendezvous is on a free port of this host (`localhost:0`), so two runs never collide.
    """
    if processes == 1 and not elastic:
        return (python, script, request)
    launcher: Sequence[str] = (
        python, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--rdzv-id={id}",
        "--max-restarts=0",
    )  # fmt: skip
    return (*launcher, script, request)
