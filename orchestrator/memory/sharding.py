"""Terms of sharding: buffers of ZeRO and FSDP, and the host memory of a node."""

from collections.abc import Iterator

from orchestrator.memory.counting import Run
from orchestrator.memory.gpus import GIB
from orchestrator.memory.term import PROCESS, Moment, Term, billions


def buffers(run: Run) -> Iterator[Term]:
    """What is gathered and reduced."""
    layout = run.layout
    if layout.kind == "fsdp":
        yield from _fsdp(run)
    elif layout.kind == "zero" and layout.stage == 3:
        yield from _stage_three(run)
    elif layout.kind == "zero":
        yield from _stages_one_and_two(run)


def _fsdp(run: Run) -> Iterator[Term]:
    layer, size = run.architecture.largest_layer, run.settings.compute
    during: tuple[Moment, ...] = ("forward", "loss", "backward", "gradients")
    if run.layout.kept:
        whole = run.architecture.parameters - run.numbers.quantized
        yield Term("sharding", "gathered weights", whole * size, f"{billions(whole)} x {size} B",
                   "weights that are not given up after the forward pass", during)  # fmt: skip
    else:
        yield Term("sharding", "two whole layers", 2 * layer * size,
                   f"2 x {billions(layer)} x {size} B",
                   "FSDP 2 gathers a layer and the next one ahead (arXiv 2304.11277)",
                   during)  # fmt: skip
    yield Term("sharding", "gradients of a whole layer", 2 * layer * size,
               f"2 x {billions(layer)} x {size} B", "reduce-scatter of a layer",
               ("backward", "gradients"))  # fmt: skip


def _bucket(run: Run, name: str, default: int) -> int:
    return dict(run.layout.buckets).get(name, default)


def _stages_one_and_two(run: Run) -> Iterator[Term]:
    size, trained = run.settings.compute, run.numbers.trained
    bucket = min(_bucket(run, "reduce_bucket_size", 500_000_000), trained)
    if run.layout.stage == 2:
        count = 2 if _bucket(run, "overlap_comm", 0) else 1
        yield Term("sharding", "reduce bucket", count * bucket * size,
                   f"{count} x {billions(bucket)} x {size} B, two with overlap_comm",
                   "DeepSpeed reduce_bucket_size, default 5e8 (contiguous_gradients)",
                   ("backward", "gradients"))  # fmt: skip
    gather = min(_bucket(run, "allgather_bucket_size", 500_000_000), trained)
    yield Term("sharding", "all-gather bucket", gather * size, f"{billions(gather)} x {size} B",
               "DeepSpeed allgather_bucket_size, default 5e8", ("step",))  # fmt: skip


def _stage_three(run: Run) -> Iterator[Term]:
    architecture, size = run.architecture, run.settings.compute
    cut = architecture.parameters - run.numbers.quantized
    square = architecture.hidden**2
    live = min(_bucket(run, "stage3_max_live_parameters", 1_000_000_000), cut)
    live = max(live, min(2 * architecture.largest_layer, cut))
    during: tuple[Moment, ...] = ("forward", "loss", "backward", "gradients")
    yield Term("sharding", "gathered weights", live * size, f"{billions(live)} x {size} B",
               "DeepSpeed stage3_max_live_parameters, at least two layers", during)  # fmt: skip
    prefetch = _bucket(run, "stage3_prefetch_bucket_size", int(0.9 * square))
    yield Term("sharding", "prefetch bucket", prefetch * size,
               f"{billions(prefetch)} x {size} B",
               "DeepSpeed stage3_prefetch_bucket_size, auto: 0.9 x hidden^2",
               during)  # fmt: skip
    bucket = _bucket(run, "reduce_bucket_size", square)
    yield Term("sharding", "reduce bucket", 2 * bucket * size,
               f"2 x {billions(bucket)} x {size} B",
               "DeepSpeed reduce_bucket_size, auto: hidden^2")  # fmt: skip


def host(run: Run) -> Iterator[Term]:
    """Host memory of one node, apart from what is moved off the GPUs."""
    layout, numbers = run.layout, run.numbers
    here = max(1, layout.gpus // max(layout.nodes, 1))
    yield Term("host", "processes", here * PROCESS, f"{here} x {PROCESS / GIB:.1f} GiB",
               "Python, torch with CUDA, the backend, its data: an allowance",
               host=True)  # fmt: skip
    loaded = run.architecture.parameters * 2
    copies = here if layout.kind == "zero" and layout.stage == 3 else 0
    if layout.kind == "fsdp":
        copies = 1 if run.settings.quantization != "nf4" else here
    if copies:
        yield Term("host", "loading", loaded * copies,
                   f"{billions(run.architecture.parameters)} x 2 B x {copies}",
                   "each process of ZeRO-3 reads the whole checkpoint; FSDP with "
                   "cpu_ram_efficient_loading only the first", host=True)  # fmt: skip
    if layout.moves_states and layout.kind == "zero":
        pinned = 4 * numbers.trained // max(layout.nodes, 1)
        yield Term("host", "pinned buffers of the offload", pinned,
                   f"{billions(numbers.trained)} x 4 B per node",
                   "DeepSpeed: gradients in float32, pinned", host=True)  # fmt: skip
