"""How a run is spread over GPUs, as far as memory depends on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.backends.base import Target
from orchestrator.distributed import fsdp
from orchestrator.distributed.deepspeed import for_recipe
from orchestrator.recipe.models import Recipe

Offload = Literal["none", "optimizer", "weights", "all"]
Kind = Literal["one", "ddp", "zero", "fsdp"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run is spread: over `gpus` on `nodes`, sharded as `kind` and `stage` say.

    `buckets` overrides the sizes of a DeepSpeed configuration (numbers of elements). Of FSDP,
    `parts` says into how many parts everything is cut if not into one per GPU, and `kept` that
    gathered weights stay until the backward pass; `version` is 1 or 2.
    """

    kind: Kind = "one"
    gpus: int = 1
    stage: int = 0
    offload: Offload = "none"
    nodes: int = 1
    buckets: tuple[tuple[str, int], ...] = ()
    parts: int = 0
    kept: bool = False
    version: int = 2

    @property
    def moves_states(self) -> bool:
        """Whether gradients and optimizer states are in host memory."""
        return self.kind in ("zero", "fsdp") and self.offload in ("optimizer", "all")

    @property
    def moves_weights(self) -> bool:
        """Whether weights are in host memory."""
        return self.stage == 3 and self.offload in ("weights", "all")

    @property
    def name(self) -> str:
        """As people call it."""
        if self.kind in ("one", "ddp"):
            return {"one": "one GPU", "ddp": "DDP"}[self.kind]
        offload = {"none": "", "optimizer": " + optimizer offload",
                   "weights": " + weights offload", "all": " + offload"}  # fmt: skip
        base = f"ZeRO-{self.stage}" if self.kind == "zero" else "FSDP"
        return base + offload[self.offload]

    def shares(self, what: Literal["weights", "gradients", "optimizer"]) -> int:
        """Into how many parts something is cut; 1: every GPU has all of it."""
        if self.kind == "fsdp":
            return self.parts or self.gpus
        first = {"optimizer": 1, "gradients": 2, "weights": 3}[what]
        return self.gpus if self.kind == "zero" and self.stage >= first else 1


def layout(
    recipe: Recipe, gpus: int, nodes: int = 1, own: Mapping[str, Any] | None = None
) -> Layout:
    """How the recipe spreads itself over so many GPUs.

    `own` is the user's DeepSpeed configuration, if the recipe names one; without it the bucket
    sizes are those of the file that is rendered.
    """
    spread = recipe.distributed
    world = max(1, gpus * nodes)
    if spread.strategy == "deepspeed":
        config = for_recipe(recipe, Target(), own)
        zero = config.get("zero_optimization")
        return _zero(zero if isinstance(zero, Mapping) else {}, world, nodes)
    if spread.strategy == "fsdp":
        return _fsdp(recipe, world, nodes)
    if spread.strategy == "ddp" and world > 1:
        return Layout("ddp", world, nodes=nodes)
    return Layout("one", 1)


def _fsdp(recipe: Recipe, world: int, nodes: int) -> Layout:
    """The layout of FSDP 1's sharding strategies, and of FSDP 2's two switches."""
    said = fsdp.settings(recipe)
    strategy = str(said.get("sharding_strategy", ""))
    parts = recipe.distributed.shard or 0
    if strategy.startswith("HYBRID"):
        parts = world // nodes
    elif strategy == "NO_SHARD":
        parts = 1
    kept = strategy in ("SHARD_GRAD_OP", "HYBRID_SHARD_ZERO2")
    return Layout(
        "fsdp",
        world,
        3,
        "all" if said["offload_params"] else "none",
        nodes,
        parts=0 if parts >= world else parts,
        kept=kept or said.get("reshard_after_forward") is False,
        version=said["version"],
    )


BUCKETS = ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size",
           "stage3_max_live_parameters", "overlap_comm")  # fmt: skip


def _zero(zero: Mapping[str, Any], world: int, nodes: int) -> Layout:
    """The layout of a DeepSpeed configuration's `zero_optimization`; `auto` is left out."""
    stage = zero.get("stage", 0)
    moved = {
        what
        for what in ("optimizer", "param")
        if isinstance(device := zero.get(f"offload_{what}"), Mapping)
        and device.get("device", "none") != "none"
    }
    if stage != 3:
        moved.discard("param")  # DeepSpeed does so too
    offload: Offload = "all" if len(moved) == 2 else "none"
    if len(moved) == 1:
        offload = "optimizer" if "optimizer" in moved else "weights"
    given = {name: zero.get(name, zero.get(name.removeprefix("stage3_"))) for name in BUCKETS}
    buckets = tuple(
        (name, int(value)) for name, value in given.items() if isinstance(value, int | float)
    )
    return Layout("zero", world, stage if stage in (1, 2, 3) else 0, offload, nodes, buckets)
