"""A look at all processes of a training before it starts: they are there, and they can compute.

Without it a rank that never comes is a silent wait of half an hour, and a launcher that starts one
process instead of four trains a quarter of the batch and exits with 0. It runs in the processes of
the training, after torchrun has started them and before the backend is imported: imports are nearly
all of a short start, and a second launch could meet other nodes and ports than the training does.

What is exchanged lies under names of its own in torchrun's store, so that the process group that
the backend makes afterwards starts afresh.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .errors import ProbeError
from .request import Request, rank

PATIENCE = 300.0
"""Seconds for all processes to answer: the first import from a network disk can take minutes."""
NOTICE = 10.0
"""Seconds that the others leave rank 0 to say what is wrong, before they end too."""


@dataclass(frozen=True, order=True)
class Answer:
    """What a rank says of itself; ``trouble`` is why it cannot take part."""

    rank: int
    host: str
    device: str
    trouble: str = ""

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def check(request: Request) -> dict[str, Any] | None:
    """Make sure that all processes of the request are there; None if nothing can be said.

    That is so for a single process, and where the launcher holds no store that outlives this look
    (torchrun of torch before 2.4).

    Raises:
        ProbeError: they are not; it names ranks and hosts.
    """
    wanted = request.get("processes")
    if not wanted or wanted == 1:
        return None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != wanted:
        if rank() != 0:  # torchrun ends all when one ends, and rank 0 has to say why
            time.sleep(NOTICE)
        raise ProbeError(
            f"{world} processes were started instead of {wanted}.",
            hint="The launcher of the log's first line was told otherwise, or not asked.",
        )
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None  # rank 0 itself would hold the store, at the port that the backend needs later
    patience = float(request.get("patience") or PATIENCE)
    return Meeting(world, patience, str(request.get("device") or "")).hold()


class Meeting:
    """All ranks at one store."""

    def __init__(self, world: int, patience: float, device: str) -> None:
        self.rank, self.world, self.patience, self.wanted = rank(), world, patience, device
        self.begun = self.started = time.monotonic()
        self.store = self._connected()

    def _connected(self) -> Any:
        """A connection of its own: a wait on one keeps everybody else from using it."""
        from torch.distributed import PrefixStore, TCPStore

        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=self.patience),
            wait_for_workers=False,
        )
        return PrefixStore("ft-preflight", store)

    def hold(self) -> dict[str, Any]:
        """Answer, wait for the others, and add up the ranks together."""
        mine = introduction(self.rank, self.wanted)
        self.store.set(f"here/{self.rank}", json.dumps(vars(mine)))
        found = self._together(self._all_here)
        answers = [Answer(**json.loads(self.store.get(f"here/{i}"))) for i in range(self.world)]
        self.started = time.monotonic()
        adding = threading.Thread(target=self._add_up, args=[mine.device], daemon=True)
        adding.start()  # what hangs in NCCL cannot be interrupted, only left behind
        adding.join(self.patience)
        self._together(lambda: self._all_right(answers))
        hosts = list(dict.fromkeys(answer.host for answer in answers))
        seconds = round(time.monotonic() - self.begun, 2)
        return {"ranks": self.world, "hosts": hosts, "seconds": seconds, "devices": found}

    def _together(self, judge: Callable[[], Any]) -> Any:
        """Rank 0 judges; the others wait for its word."""
        name = f"word/{self.store.add(f'words/{self.rank}', 1)}"
        if self.rank == 0:
            try:
                value = judge()
            except BaseException:
                self.store.set(name, "bad")
                raise
            self.store.set(name, "good")
            return value
        with contextlib.suppress(
            RuntimeError
        ):  # rank 0, which holds the store's other end, is gone
            self.store.wait([name], timedelta(seconds=self.patience + NOTICE))
            if self.store.get(name) == b"good":
                return None
        time.sleep(NOTICE)
        raise ProbeError("The look at all processes failed.", hint="Rank 0 says why.")

    def _all_here(self) -> list[str]:
        missing = self._missing("here")
        if missing:
            raise ProbeError(
                f"{listed(missing)} did not answer within {self.patience:.0f} s; "
                f"{self._those_here(missing)} did.",
                hint="Look at the log of those nodes: did they start, can they import torch, does "
                "a firewall keep them from the first node?",
            )
        answers = [Answer(**json.loads(self.store.get(f"here/{i}"))) for i in range(self.world)]
        troubled = [f"{answer}: {answer.trouble}" for answer in answers if answer.trouble]
        if troubled:
            raise ProbeError("; ".join(troubled) + ".", hint="Compare GPUs and processes per node.")
        devices = [f"{answer.host}/{answer.device}" for answer in answers]
        shared = {name for name in devices if devices.count(name) > 1 and not name.endswith("/cpu")}
        if shared:
            raise ProbeError(
                f"Several processes would use one GPU: {', '.join(sorted(shared))}.",
                hint="Is CUDA_VISIBLE_DEVICES set for each process by something else?",
            )
        return sorted(set(devices))

    def _add_up(self, device: str) -> None:
        """An all-reduce of what each rank is; the result goes to the store."""
        import torch
        import torch.distributed as dist

        local = int(os.environ.get("LOCAL_RANK", "0"))
        place = torch.device("cpu") if device == "cpu" else torch.device("cuda", local)
        store = self._connected()
        try:
            if place.type == "cuda":
                torch.cuda.set_device(place)  # a thread begins with the first GPU
            dist.init_process_group(
                "gloo" if place.type == "cpu" else "nccl",
                store=store,
                rank=self.rank,
                world_size=self.world,
                # NCCL ends the whole process at its limit: rank 0 is to speak before
                timeout=timedelta(seconds=2 * self.patience),
            )
            total = torch.tensor([float(self.rank + 1)], device=place)
            dist.all_reduce(total)
            store.set(f"sum/{self.rank}", str(total.item()))
        except RuntimeError as error:
            order = store.add("errors", 1)  # the first is the cause, the others wait for it
            store.set(f"error/{self.rank}", f"{order:06} {str(error).splitlines()[0]}")
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def _all_right(self, answers: list[Answer]) -> None:
        missing = self._missing("sum", "error")
        failed = sorted(
            (self.store.get(f"error/{i}").decode(), answers[i])
            for i in range(self.world)
            if self.store.check([f"error/{i}"])
        )
        hint = "Look at NCCL_DEBUG=INFO output, the interface (NCCL_SOCKET_IFNAME), the driver."
        if failed:
            said, first = failed[0]
            raise ProbeError(f"{first} cannot talk to the others: {said[7:]}", hint=hint)
        if missing:
            raise ProbeError(f"{listed(missing)} did not finish the all-reduce.", hint=hint)
        right = self.world * (self.world + 1) / 2
        sums = [float(self.store.get(f"sum/{i}")) for i in range(self.world)]
        wrong = [f"{answers[i]} got {found:g}" for i, found in enumerate(sums) if found != right]
        if wrong:
            raise ProbeError(f"The ranks add up to {right:g}, but {', '.join(wrong)}.", hint=hint)

    def _missing(self, *kinds: str) -> list[int]:
        """The ranks without any of these entries, once the patience is at its end."""
        left = set(range(self.world))
        while left:
            left = {i for i in left if not any(self.store.check([f"{k}/{i}"]) for k in kinds)}
            if not left or time.monotonic() - self.started > self.patience:
                break
            time.sleep(0.05)
        return sorted(left)

    def _those_here(self, missing: Iterable[int]) -> str:
        there = [i for i in range(self.world) if i not in set(missing)]
        answers = [Answer(**json.loads(self.store.get(f"here/{i}"))) for i in there]
        return ", ".join(map(str, answers)) or "nobody"


def introduction(mine: int, wanted: str) -> Answer:
    """This rank's host and device: a GPU's name that no other process has, or the CPU."""
    import torch

    host, local = socket.gethostname(), int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available():
        return Answer(mine, host, "cpu", "it sees no GPU" if wanted == "cuda" else "")
    count = torch.cuda.device_count()
    if local >= count:
        return Answer(mine, host, f"none{mine}", f"it needs GPU {local} and sees {count}")
    try:
        torch.cuda.set_device(local)
        return Answer(mine, host, str(torch.cuda.get_device_properties(local).uuid))
    except RuntimeError as error:
        return Answer(mine, host, f"none{mine}", f"GPU {local}: {str(error).splitlines()[0]}")


def listed(ranks: Iterable[int]) -> str:
    """``rank 1``, or ``ranks 1, 3``."""
    names = [str(one) for one in ranks]
    return f"rank{'s' if len(names) > 1 else ''} {', '.join(names)}"
