"""What is looked at while the process of a stage runs."""

from orchestrator import stages
from orchestrator.errors import BackendError
from orchestrator.metrics import Tail, Training
from orchestrator.plan import Plan, Stage
from orchestrator.progress import StageDisplay
from orchestrator.recipe.sections.training import REWARDED
from orchestrator.runs.stillness import Watch


class Watching:
    """Its events as they come: shown, and judged where going on makes no sense."""

    def __init__(self, plan: Plan, stage: Stage, display: StageDisplay) -> None:
        self.trains = stage.name == "train"
        self.display = display
        self.tail = Tail(plan.layout.events, from_end=True)
        self.training = Training(rewarded=plan.recipe.training.stage in REWARDED)
        self.watch = Watch(plan.layout.log(stage.name))

    def look(self) -> None:
        """Take in what is new.

        Raises:
            BackendError: the training has no hope.
        """
        training, events = self.training, list(self.tail.read())
        for event in events:
            if event.get("event") == "preflight":
                self.display.tell(stages.met(event))
            if training.take(event):
                self.display.training(training)
        if self.trains and (said := self.watch.look(training, events=bool(events))):
            self.display.tell(f"{said}; it goes on, unless you end it")
        if training.hopeless:
            raise BackendError(
                f"training was stopped at step {training.step}: {training.hopeless}",
                hint="look at the labels (`ft inspect-tokens`), then at model.dtype (float16 "
                "overflows where bfloat16 does not), then at model.attention",
            )
