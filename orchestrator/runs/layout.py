"""The run directory. This class owns every file name in it; it touches no disk."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Names inside `runs/<time>-<name>-<id>/`."""

    root: Path

    @property
    def id(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    @property
    def recipe(self) -> Path:
        """The resolved recipe: overrides applied, defaults written out."""
        return self.root / "recipe.yaml"

    @property
    def record(self) -> Path:
        """`run.json`."""
        return self.root / "run.json"

    @property
    def record_before(self) -> Path:
        """`run.json` as it was before its last change."""
        return self.root / ".run.json.before"

    @property
    def events(self) -> Path:
        """One JSON object per line, from `ft` and from the backend."""
        return self.root / "events.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the `ft` that works on the run."""
        return self.root / ".lock"

    @property
    def rendered(self) -> Path:
        """The backend's files."""
        return self.root / "rendered"

    @property
    def adapter(self) -> Path:
        """What training writes when it trains a LoRA."""
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        """What training writes when it trains the whole model."""
        return self.root / "model"

    @property
    def merged(self) -> Path:
        """The LoRA merged into its base."""
        return self.root / "merged"

    @property
    def export(self) -> Path:
        """The clean folder."""
        return self.root / "export"

    def log(self, stage: str) -> Path:
        """Raw output of a stage."""
        return self.root / "logs" / f"{stage}.log"

    def attempt(self, number: int) -> Path:
        """What an attempt at training left that had to be changed: its files and checkpoints."""
        return self.root / "attempts" / str(number)

    @property
    def stop(self) -> Path:
        """There while training is asked to save a checkpoint and end."""
        return self.root / "stages" / "train.stop"

    def script(self, job: str) -> Path:
        """The batch script of a job."""
        return self.root / "jobs" / f"{job}.sh"

    def request(self, stage: str) -> Path:
        """What the stage's process is asked to do."""
        return self.rendered / f"{stage}.request.json"

    def result(self, stage: str) -> Path:
        """What the stage's process answered."""
        return self.root / "stages" / f"{stage}.result.json"

    def marker(self, stage: str) -> Path:
        """There once the stage has ended well and was judged."""
        return self.root / "stages" / f"{stage}.done.json"
