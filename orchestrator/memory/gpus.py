"""GPUs by name: how many, how much memory, how much of it a training process can use."""

import difflib
import re
from dataclasses import dataclass

from orchestrator.errors import UsageError

GIB = 2**30

MODELS: dict[str, float] = {
    "P100": 16, "V100": 16, "T4": 15, "P40": 22.5, "RTX2080TI": 11, "RTX3060": 12, "RTX3070": 8,
    "RTX3080": 10, "RTX3080TI": 12, "RTX3090": 24, "RTX3090TI": 24, "RTX4060TI": 16, "RTX4070": 12,
    "RTX4070TI": 12, "RTX4080": 16, "RTX4080SUPER": 16, "RTX4090": 24, "RTX5080": 15.9,
    "RTX5090": 31.8, "TITANRTX": 23.6, "RTX6000": 22.5, "RTX8000": 45, "RTXPRO6000": 95.6,
    "RTXA4000": 16, "RTXA5000": 24, "RTXA6000": 48, "A4000": 16, "A5000": 24, "A6000": 48,
    "RTX6000ADA": 48, "A10": 22.5, "A10G": 22.5, "A16": 15, "A30": 24, "A40": 45, "L4": 22.5,
    "L40": 45, "L40S": 45, "A100": 80, "A800": 80, "H100": 79.6, "H800": 79.6, "H20": 95.6,
    "H100NVL": 93.6, "GH200": 95.6, "H200": 140.4, "B200": 178.4, "MI250X": 64, "MI300X": 192,
}  # fmt: skip
"""Memory in GiB, as the driver tells it (`nvidia-smi`, memory.total); without a size in the name
the larger A100 and the smaller V100 are meant."""

USABLE = 0.97
"""Share of it that one process gets: the driver keeps some, and so does whoever looks at it."""

BESIDE = frozenset((
    "NVIDIA", "TESLA", "GEFORCE", "QUADRO", "AMD", "INSTINCT", "GPU", "GENERATION", "BLACKWELL",
    "WORKSTATION", "SERVER", "EDITION", "PCIE", "SXM", "SXM2", "SXM3", "SXM4", "SXM5", "HBM2",
    "HBM2E", "HBM3", "HBM3E",
))  # fmt: skip
"""Words of drivers and shops that say nothing of the memory."""

_SPEC = re.compile(
    r"(?:(?P<nodes>\d+)\s*x\s*)?(?:(?P<count>\d+)\s*x\s*)?(?P<model>[a-z0-9][a-z0-9 ._-]*)",
    re.IGNORECASE,
)
_SIZE = re.compile(r"(?:^|[-_ ])(\d+(?:\.\d+)?)\s*g(?:i?b)?(?=$|[-_ ])", re.IGNORECASE)


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
    if match is None:
        raise UsageError(
            f"--gpus {spec}: not a number and a kind of GPUs",
            hint="examples: 4xA100-40GB, 2xH100, 1x24GB, 2x4xA100-40GB for two nodes",
        )
    first, second, model = match["nodes"], match["count"], match["model"]
    count, nodes = int(second or first or 1), int(first) if second else 1
    given = _SIZE.search(model)
    name = (model[: given.start()] + model[given.end() :] if given else model).strip(" _-")
    # GB on a GPU's box are GiB: an A100-40GB has 40,960 MiB
    size = float(given[1]) if given else _known(name)
    if size is None:
        raise UsageError(
            f"--gpus {spec}: the memory of {name} is not known here",
            hint=f"say it: {spec}-24GB{_alike(name)}",
        )
    if not (count and nodes and size > 0):
        raise UsageError(f"--gpus {spec}: there must be at least one GPU")
    return Gpus(count, int(size * GIB), name, nodes)


def _key(name: str) -> str:
    words = re.split(r"[\s_-]+", name.upper())
    return "".join(word for word in words if word not in BESIDE)


def _known(name: str) -> float | None:
    """GiB of a model by the driver's name, the shop's or a short one."""
    key = _key(name)
    return MODELS.get(key) or MODELS.get(f"RTX{key}")


def _alike(name: str) -> str:
    close = difflib.get_close_matches(_key(name), MODELS, n=1, cutoff=0.7)
    return f", or is it {close[0]}?" if close else ""
