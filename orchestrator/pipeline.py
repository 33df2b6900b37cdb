"""Walk the stages of a plan: start, follow, judge, record.

A stage is done when its marker says so. Everything that can go wrong ends in the record: failed
with a reason, or interrupted; a stage that was started again starts from clean folders.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import last_words, shell, stages
from orchestrator.diagnosis import diagnose
from orchestrator.environments.environment import Environment, process_environment
from orchestrator.environments.extensions import in_use
from orchestrator.errors import (
    ArtifactError,
    BackendError,
    FtError,
    LaunchError,
    RunInterrupted,
    Suspended,
    UsageError,
)
from orchestrator.files import (
    STORAGE,
    no_room,
    read_json,
    unwritable,
    write_atomic,
    write_json,
)
from orchestrator.interrupts import signals_as_interrupt
from orchestrator.launchers import rendezvous
from orchestrator.oom import attempts, failure, kills
from orchestrator.plan import STAGES, Plan, Stage, StageName
from orchestrator.progress import StageDisplay
from orchestrator.runs.lock import locked
from orchestrator.runs.record import Record, now
from orchestrator.watching import Watching


@dataclass
class Pipeline:
    """The stages of one run, walked in this process.

    In a job with a time limit, training that was asked to end (`suspend`) has `patience` seconds to
    save a checkpoint.
    """

    plan: Plan
    record: Record
    environment: Environment
    patience: float = 600.0
    asked: float | None = None

    def suspend(self) -> None:
        """Ask training to save a checkpoint and end; safe in a signal handler."""
        self.asked = self.asked or time.monotonic()

    def run(self, *, until: StageName = STAGES[-1], again: StageName | None = None) -> None:
        """Walk to stage `until`; those with a marker are left alone, except from `again` on.

        Raises:
            FtError: a stage failed; the record says which and why.
            RunInterrupted: Ctrl-C or SIGTERM.
        """
        layout = self.record.layout
        started = time.monotonic()
        self._is_where_it_belongs(until)
        with locked(layout), signals_as_interrupt():
            self.record.reread()  # another ft may have worked on it since it was opened
            try:
                self.record.update(
                    status="running", error=None, pid=os.getpid(), host=socket.gethostname()
                )
                if again:
                    self._forget_from(again)
                self._forget_what_is_gone()
                for stage in self.plan.stages:
                    if STAGES.index(stage.name) > STAGES.index(until):
                        break
                    self._walk(stage)
                self._finish(started)
            except KeyboardInterrupt as error:
                self._ended("interrupted", "interrupted by the user", started)
                raise RunInterrupted(
                    f"interrupted; the run is kept in {layout.root}",
                    hint=f"go on with: ft recipe run --resume {layout.root}",
                ) from error
            except Suspended as error:
                self._ended("waiting", error.message, started, error)
                raise
            except FtError as error:
                self._ended("failed", error.message, started, error)
                raise
            except OSError as error:
                if error.errno not in STORAGE:
                    self._ended("failed", f"a bug in ft: {error!r}", started)
                    raise
                failure = unwritable(error, error.filename or layout.root, "use")
                failure.hint += f"; then: ft recipe run --resume {layout.root}"
                self._ended("failed", failure.message, started, failure)
                raise failure from error
            except BaseException as error:
                self._ended("failed", f"a bug in ft: {error!r}", started)
                raise

    def _forget_from(self, first: StageName) -> None:
        """A stage that is done anew makes what came after it old."""
        names = [stage.name for stage in self.plan.stages]
        for name in names[names.index(first) :]:
            self.record.layout.marker(name).unlink(missing_ok=True)
            self.record.layout.result(name).unlink(missing_ok=True)
            self.record.stage(name, status="waiting")

    def _forget_what_is_gone(self) -> None:
        """Markers are believed only while what they stand for is there.

        Without its prepared data a training would tokenize by itself, unjudged and in every rank.

        Raises:
            ArtifactError: what training made was removed; that is never redone unasked.
        """
        layout = self.record.layout
        if layout.marker("train").is_file():
            if not stages.has_weights(self.plan.training_output):
                raise ArtifactError(
                    f"{self.plan.training_output} is gone or has no weights",
                    hint="put it back, or start a new run",
                )
        elif stages.prepared_facts(Path(self.plan.context.prepared)) is None:
            self._forget_from("preprocess")
        if layout.marker("merge").is_file() and not stages.has_weights(layout.merged):
            self._forget_from("merge")

    def _walk(self, stage: Stage) -> None:
        layout, name = self.record.layout, stage.name
        done = read_json(layout.marker(name))
        if isinstance(done, dict):
            StageDisplay(stage).skipped("done before", done.get("facts", {}))
            return
        self.record.stage(name, status="running", started=now(), log=str(layout.log(name)))
        self.record.event("stage_begin", stage=name)
        begin = time.monotonic()
        with StageDisplay(stage) as display:
            facts = self._do(stage, display)
            seconds = round(time.monotonic() - begin, 3)
            write_json(layout.marker(name), {"stage": name, "seconds": seconds, "facts": facts})
            self.record.stage(name, status="done", ended=now(), seconds=seconds, facts=facts)
            self.record.event("stage_end", stage=name, seconds=seconds)
            display.done(seconds, facts)

    def _do(self, stage: Stage, display: StageDisplay) -> dict[str, Any]:
        match stage.name:
            case "fetch":
                return stages.fetch(self.plan, display, self._process)
            case "preprocess":
                return stages.preprocess(self.plan, display, self._process)
            case "inspect":
                return stages.inspect(self.plan, display)
            case "train":
                self.plan, facts = attempts.train(self.plan, self.record, display, self._process)
                return facts
            case "merge":
                return stages.merge(self.plan, display, self._process)
            case "export":
                return stages.export(self.plan, self.record, display)

    def _process(
        self, stage: Stage, display: StageDisplay, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the stage's process and return what it answered.

        Raises:
            BackendError: it failed; with the cause, and the last lines of its log.
        """
        layout, name = self.record.layout, stage.name
        if request is not None:
            write_json(layout.request(name), request)
        layout.result(name).parent.mkdir(exist_ok=True)
        layout.result(name).unlink(missing_ok=True)
        env = process_environment(
            self.environment, offline=self.plan.context.offline, extra=self._variables(stage)
        )
        self.record.stage(name, command=list(stage.argv), environment=shell.difference(env))
        log = layout.log(name)
        watching = Watching(self.plan, stage, display)

        def look() -> None:
            if self.asked and name == "train":
                self._ask_to_stop(self.asked)
            watching.look()

        killed = kills.counted()
        builds = name == "train" and self.plan.recipe.distributed.strategy == "deepspeed"
        built = in_use(Path(env["TORCH_EXTENSIONS_DIR"])) if builds else contextlib.nullcontext()
        with built:
            process = shell.start(stage.argv, env=env, cwd=layout.root, log=log)
            self.record.stage(name, pid=process.pid)
            done = shell.follow(process, log=log, on_poll=look)
        self.record.stage(name, exit_code=done.exit_code)
        answer = read_json(layout.result(name))
        if done.exit_code == 0 and isinstance(answer, dict) and "error" not in answer:
            return answer
        words = last_words.of_process(answer, log, since=process.logged)
        memory = failure.of_process(name, done, words, log, before=killed)
        raise memory or _failure(stage, done, words, log)

    def _is_where_it_belongs(self, until: StageName) -> None:
        """A run of a cluster trains in its job, never on the login node.

        Raises:
            UsageError: this is no job.
        """
        trains = STAGES.index(until) >= STAGES.index("train")
        waiting = not self.record.layout.marker("train").is_file()
        if trains and waiting and self.plan.context.nodes and "SLURM_JOB_ID" not in os.environ:
            raise UsageError(
                "this run trains in a job of its cluster, which this is not",
                hint=f"ft recipe run --resume {self.record.layout.root} submits what is left",
            )

    def _variables(self, stage: Stage) -> dict[str, str]:
        """What the stage's process gets besides the allow-list: a cluster's variables, a port.

        Raises:
            LaunchError: no port is free.
        """
        inherited = self.plan.context.inherited
        variables = {name: os.environ[name] for name in inherited if name in os.environ}
        if stage.name == "train" and self.plan.context.nodes > 1:
            try:
                port = rendezvous.port(int(os.environ.get("SLURM_JOB_ID", "0")))
            except OSError as error:
                raise LaunchError(str(error), hint="is another program taking them all?") from error
            variables["FT_MASTER_PORT"] = str(port)
        return {**variables, **stage.variables}

    def _ask_to_stop(self, asked: float) -> None:
        """Put the request where the training looks for it.

        Raises:
            Suspended: it had its time, and did not save.
        """
        stop = self.record.layout.stop
        if not stop.exists():
            write_atomic(stop, "")
            self.record.event("stop_asked")
        if time.monotonic() - asked > self.patience:
            raise Suspended(
                f"training saved no checkpoint within {self.patience:.0f} s of being asked to end",
                hint="it goes on from the last one before; a larger warn_before in the cluster "
                "profile gives it more time",
            )

    def _finish(self, started: float) -> None:
        waiting = [
            s.name for s in self.plan.stages if not self.record.layout.marker(s.name).is_file()
        ]
        self._ended("done" if not waiting else "waiting", "", started)

    def _ended(
        self, status: str, reason: str, started: float, error: FtError | None = None
    ) -> None:
        document = self.record.document
        for name, stage in document.get("stages", {}).items():
            if stage.get("status") == "running":
                self.record.stage(name, status=status, ended=now(), error=reason)
        seconds = round((document.get("seconds") or 0) + time.monotonic() - started, 3)
        code = int(error.exit_code) if error else 130 if status == "interrupted" else 0
        with contextlib.suppress(LaunchError, OSError):  # a full disk must not hide the cause
            self.record.update(
                status=status, ended=now(), seconds=seconds, exit_code=code, error=reason or None
            )
            self.record.event("run_end", status=status)


QUIET = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Ends that come from outside: the last lines of the log say nothing about them."""


def _failure(
    stage: Stage, done: shell.Completed, words: last_words.LastWords, log: Path
) -> BackendError:
    first = words.first
    code = first.exit_code if first else done.exit_code
    known = diagnose(f"{words.evidence}\n{no_room(log.parent)}", code)
    message, hint = words.message, words.hint
    if known:
        detail = message.partition("\n")[0] or (str(first) if first else "")
        text = f"{stage.name}: {known.cause}" + (f" ({detail})" if detail else "")
        hint = known.hint if not hint else f"{hint}\n{known.hint}"
    elif message:
        prefix = f"{words.kind}: " if words.kind and words.kind != "ProbeError" else ""
        text = f"{stage.name}: {prefix}{message}"
    else:
        text = f"{stage.name}: {first or f'the backend {done.reason}'}"
    expected = words.kind == "ProbeError" or code in QUIET or (known and known.plain)
    return BackendError(
        text,
        hint=f"{hint or 'the last lines above say why'}\nwhole log: {log}",
        detail="" if expected else done.tail,
    )
