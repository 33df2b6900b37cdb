"""A memory plan for people (80 columns are enough) and programs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator import ui
from orchestrator.memory.accuracy import Comparison
from orchestrator.memory.fit import Choice, Plan
from orchestrator.memory.gpus import GIB
from orchestrator.memory.planning import MemoryPlan
from orchestrator.memory.term import MOMENTS, Estimate, billions

WIDTH = 26
CAVEAT = (
    "Estimated from shapes and from the backends' code, compared with what that code allocates "
    "without a GPU; peaks on GPUs were not measured for this release."
)


def document(memory: MemoryPlan) -> dict[str, Any]:
    """The JSON document of `ft plan memory`."""
    plan = memory.plan
    smallest = plan.smallest
    return {
        "base": memory.base,
        "config_from": memory.origin,
        "model": plan.architecture.as_dict(),
        "gpus": (
            {
                "count": plan.gpus.count,
                "nodes": plan.gpus.nodes,
                "name": plan.gpus.name or None,
                "memory_bytes": plan.gpus.memory,
                "usable_bytes": plan.gpus.usable,
            }
            if plan.gpus
            else None
        ),
        "micro_batch_size": plan.settings.micro_batch,
        "sequence_length": plan.settings.sequence,
        "recipe": plan.own.as_dict(),
        "layouts": [choice.as_dict() for choice in plan.choices],
        "smallest_that_fits": smallest.layout.name if smallest else None,
        "largest_micro_batch_size": plan.largest_batch() if plan.gpus else None,
        "longest_sequence": plan.longest() if plan.gpus else None,
        "longer": [
            {"sequence_length": sequence, "bytes": size} for sequence, size in plan.longer()
        ],
        "auto": memory.reason or None,
        "measured_on_gpu": False,
    }


def show(memory: MemoryPlan, *, explain: bool = False) -> None:
    """The plan on the terminal."""
    plan = memory.plan
    _model(memory)
    _terms(plan)
    if explain:
        _formulas(plan.own.estimate)
    _layouts(plan)
    if memory.reason:
        ui.say(f"- {memory.reason}.")
    for sentence in answers(plan):
        ui.say(f"- {sentence}")
    for remark in plan.own.estimate.notes:
        ui.say_styled("[yellow]note[/]: {}", remark)
    ui.say_styled("[dim]{}[/]", CAVEAT)


def gib(size: float) -> str:
    """Bytes in GiB, as precise as it matters."""
    value = size / GIB
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _model(memory: MemoryPlan) -> None:
    plan, model = memory.plan, memory.plan.architecture
    settings = plan.settings
    ui.say_styled(
        "[bold]{}[/]: {} parameters [dim](config from {})[/]",
        memory.base, billions(model.parameters), memory.origin,
    )  # fmt: skip
    groups = ", ".join(f"{name} {billions(count)}" for name, count in model.groups.items())
    ui.say_styled("[dim]{}[/]", groups)
    method = "LoRA" if settings.lora else "full fine-tune"
    base = f" on {settings.quantization}" if settings.quantization != "none" else ""
    pairs = " x 2" if settings.sequences == 2 else ""
    ui.say(
        f"{method}{base}, {settings.micro_batch}{pairs} x {settings.sequence} tokens, "
        f"{settings.optimizer}, attention {settings.attention}, checkpointing "
        f"{settings.checkpointing}, {settings.backend}"
    )


def _terms(plan: Plan) -> None:
    from rich.table import Table

    own = plan.own.estimate
    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(min_width=16)
    grid.add_column(justify="right")
    grid.add_column(style="cyan")
    scale = max(own.total, plan.gpus.usable if plan.gpus else 0, 1)
    for name, size in sorted(own.groups.items(), key=lambda item: -item[1]):
        grid.add_row(name, gib(size), "█" * round(WIDTH * size / scale))
    room = f"of {gib(plan.gpus.usable)} usable" if plan.gpus else ""
    grid.add_row("[bold]total[/]", f"[bold]{gib(own.total)}[/]", f"[default]GiB {room}[/]")
    ui.say("")
    ui.say(f"{own.layout.name}, peak {MOMENTS[own.moment]}:")
    ui.say(grid)


def _formulas(estimate: Estimate) -> None:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("GiB", justify="right")
    grid.add_column("term and formula")
    for term in estimate.terms:
        where = " [host]" if term.host else ""
        peak = "" if term.host or estimate.moment in term.moments else " (not at the peak)"
        # square brackets would be markup
        text = f"{term.name}{where}{peak}: {term.formula}".replace("[", r"\[")
        grid.add_row(gib(term.bytes), f"{text}\n[dim]{term.source}[/]")
    ui.say("")
    ui.say(grid)


def _layouts(plan: Plan) -> None:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("layout", no_wrap=True)
    grid.add_column("GiB/GPU", justify="right")
    grid.add_column("host GiB/node", justify="right")
    grid.add_column("")
    own = plan.own.layout
    if own not in [choice.layout for choice in plan.choices]:
        _row(grid, plan.own, own=True)
    for choice in plan.choices:
        _row(grid, choice, own=choice.layout == own)
    where = f"on {plan.gpus}" if plan.gpus else "no GPU is seen: --gpus 4xA100-40GB names some"
    ui.say("")
    ui.say(where)
    ui.say(grid)


def _row(grid: Any, choice: Choice, *, own: bool) -> None:
    if choice.refused:
        verdict = f"[dim]{choice.refused}[/]"
    elif choice.fits is None:
        verdict = ""
    elif choice.crowded_host:
        verdict = "[red]host too small[/]"
    else:
        verdict = "[green]fits[/]" if choice.fits else "[red]does not fit[/]"
    name = f"[bold]{choice.layout.name}[/] (recipe)" if own else choice.layout.name
    found = choice.estimate
    grid.add_row(name, gib(found.total), gib(found.host), verdict)


def answers(plan: Plan) -> Iterator[str]:
    """The answers in words."""
    own, gpus = plan.own, plan.gpus
    if gpus is None:
        yield f"One GPU needs {gib(own.estimate.total)} GiB as the recipe is written."
        yield from _lengths(plan)
        return
    need, room = gib(own.estimate.total), gib(gpus.usable)
    verb = "fits" if own.fits else "does not fit"
    host = f", but {gib(own.estimate.host)} GiB of host memory" if own.crowded_host else ""
    yield f"As it is written ({own.layout.name}) it {verb}: {need} GiB of {room} usable{host}."
    smallest = plan.smallest
    if smallest is None:
        yield from _nothing(plan)
    elif smallest.layout != own.layout:
        yield f"The smallest sharding that fits is {smallest.layout.name}: {overrides(smallest)}"
    if plan.chosen.fits:
        name = plan.chosen.layout.name
        batch = plan.largest_batch()
        more = "1024 or more" if batch >= 1024 else str(batch)
        yield f"Largest micro batch under {name}: {more} (the recipe: {plan.settings.micro_batch})."
        yield f"Longest sequence under {name}: {plan.longest():,} tokens."
    yield from _lengths(plan)


def _nothing(plan: Plan) -> Iterator[str]:
    """What helps where no layout fits."""
    best = min((c for c in plan.choices if not c.refused), key=lambda c: c.estimate.total)
    yield (
        f"No sharding fits; {best.layout.name} comes nearest with {gib(best.estimate.total)} GiB "
        f"per GPU and {gib(best.estimate.host)} GiB of host memory."
    )
    settings = plan.settings
    help_with = []
    if settings.micro_batch > 1:
        help_with.append("a micro batch of 1")
    if settings.checkpointing == "none":
        help_with.append("gradient checkpointing")
    if settings.loss == "plain":
        help_with.append("kernels.liger or cut_cross_entropy (no logits)")
    if settings.lora is None:
        help_with.append("a LoRA")
    elif settings.quantization == "none":
        help_with.append("nf4")
    help_with.append("a shorter sequence or more GPUs")
    yield f"What would help: {', '.join(help_with)}."


def _lengths(plan: Plan) -> Iterator[str]:
    longer = plan.longer()
    if longer:
        costs = ", ".join(f"{sequence:,} tokens {gib(size)} GiB" for sequence, size in longer)
        yield f"A longer sequence under {plan.chosen.layout.name}: {costs}."


def overrides(choice: Choice) -> str:
    """The options that choose a layout."""
    return " ".join(f"--set {key}={value}" for key, value in fields(choice).items())


def fields(choice: Choice) -> dict[str, Any]:
    """The recipe's fields for a layout."""
    layout = choice.layout
    if layout.kind in ("one", "ddp"):
        return {"distributed.strategy": "none" if layout.kind == "one" else "ddp"}
    strategy = "deepspeed" if layout.kind == "zero" else "fsdp"
    found: dict[str, Any] = {"distributed.strategy": strategy}
    if layout.kind == "zero":
        found["distributed.zero_stage"] = layout.stage
    if layout.offload != "none":
        found["distributed.offload"] = layout.offload
    return found


def show_accuracy(comparisons: Sequence[Comparison], facts: Mapping[str, Any]) -> None:
    """Predicted and measured bytes, run by run."""
    if not comparisons:
        ui.say("no finished run has a prediction and a measured peak")
        return
    ui.table(
        ("run", "layout", "what", "predicted", "measured", "error"),
        [
            (one.run, one.layout, one.what, gib(one.predicted), gib(one.measured),
             f"{one.error:+.0%}")
            for one in comparisons
        ],
    )  # fmt: skip
    if facts["gpu_runs"]:
        ui.say(
            f"{facts['gpu_runs']} runs on GPUs: median error {facts['median_error']:.1%}, "
            f"worst {facts['worst_error']:+.1%} (GiB, allocated)"
        )
    else:
        ui.say("none of them ran on a GPU: a CPU process is mostly Python and torch themselves")
