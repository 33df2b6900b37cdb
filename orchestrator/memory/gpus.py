"""GPUs by name: how many, how much memory, how much of it a training process can use."""

import re
from dataclasses import dataclass

from orchestrator.errors import UsageError

GIB = 2**30

MODELS: dict[str, float] = {
    "P100": 16, "V100": 16, "T4": 15, "P40": 22.5, "RTX2080TI": 11, "RTX3060": 12, "RTX3080": 10,
    "RTX3090": 24, "RTX4060TI": 16, "RTX4070": 12, "RTX4080": 16, "RTX4090": 24, "RTX5090": 31.8,
    "RTXA4000": 16, "RTXA5000": 24, "RTXA6000": 48, "A4000": 16, "A5000": 24, "A6000": 48,
    "RTX6000ADA": 48, "A10": 22.5, "A10G": 22.5, "A16": 15, "A30": 24, "A40": 45, "L4": 22.5,
    "L40": 45, "L40S": 45, "A100": 80, "A800": 80, "H100": 79.6, "H800": 79.6, "H20": 95.6,
    "GH200": 95.6, "H200": 140.4, "B200": 178.4,
}  # fmt: skip
"""Memory in GiB, as the driver tells it (`nvidia-smi`, memory.total); without a size in the name
the larger A100 and the smaller V100 are meant."""

USABLE = 0.97
"""Share of it that one process gets: the driver keeps some, and so does whoever looks at it."""

_SPEC = re.compile(
    r"(?:(?P<nodes>\d+)\s*x\s*)?(?:(?P<count>\d+)\s*x\s*)?(?P<name>[a-z][a-z0-9 ]*?)?"
    r"[-_ ]?(?:(?P<size>\d+(?:\.\d+)?)\s*gi?b)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Gpus:
    """Equal GPUs: `count` on each of `nodes`, each with `memory` bytes."""

    count: int
    memory: int
    name: str = ""
    nodes: int = 1

    @property
    def total(self) -> int:
        """How many there are on all nodes."""
        return self.count * self.nodes

    @property
    def usable(self) -> int:
        """Bytes that a process can have on one of them."""
        return int(self.memory * USABLE)

    def __str__(self) -> str:
        size = f"{self.memory / GIB:.0f} GiB"
        name = f"{self.name}, {size}" if self.name else size
        nodes = f"{self.nodes} nodes with " if self.nodes > 1 else ""
        return f"{nodes}{self.count} x {name}"


def parse(spec: str) -> Gpus:
    """GPUs of a text: `4xA100-40GB`, `1x24GB`, `2xH100`, `A100`, `2x4xA100-40GB` (two nodes).

    Raises:
        UsageError: it is none, or names a model whose memory is not known here.
    """
    match = _SPEC.fullmatch(spec.strip())
    name = re.sub(r"[\s_-]", "", match["name"] or "").upper() if match else ""
    if match is None or not (name or match["size"]):
        raise UsageError(
            f"--gpus {spec}: not a number and a kind of GPUs",
            hint="examples: 4xA100-40GB, 2xH100, 1x24GB, 2x4xA100-40GB for two nodes",
        )
    # GB on a GPU's box are GiB: an A100-40GB has 40,960 MiB
    size = float(match["size"]) if match["size"] else MODELS.get(name)
    if size is None:
        raise UsageError(
            f"--gpus {spec}: the memory of {match['name']} is not known here",
            hint=f"say it: {spec}-24GB",
        )
    first, second = match["nodes"], match["count"]
    count, nodes = int(second or first or 1), int(first) if second else 1
    if not (count and nodes and size > 0):
        raise UsageError(f"--gpus {spec}: there must be at least one GPU")
    return Gpus(count, int(size * GIB), match["name"] or "", nodes)
