"""What both backends must do for real: one contract, run once per backend.

A finished smoke run per recipe is shared by the tests that look at it, because a backend's
start-up is nearly all of the time.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.registry import BACKENDS
from orchestrator.checks import check, has_errors
from orchestrator.environments import registry
from orchestrator.environments.environment import find, process_environment
from orchestrator.recipe.load import load
from orchestrator.recipe.sources import shipped
from orchestrator.smoke import STEPS
from tests.helpers import ROOT, Outcome, ft, write_recipe

RECIPES = sorted(path.stem for path in shipped("recipes").glob("*.yaml"))


@cache
def expressible(recipe: str, backend: str) -> bool:
    """Whether the backend can do what the recipe asks for."""
    file = shipped("recipes") / f"{recipe}.yaml"
    return not has_errors(check(load(file, backend=backend)))


class Place:
    """A working folder and an `$FT_HOME` of its own that uses the installed environments."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.environ = {"FT_HOME": str(folder / "home")}
        for backend in BACKENDS:
            self.environ[registry.variable(backend)] = str(find(backend).prefix)

    def ft(self, *arguments: str | Path, before: Sequence[str] = ()) -> Outcome:
        """Run `ft` here, through the command `before` if one is given."""
        return ft(*arguments, cwd=self.work, before=before, **self.environ)

    @contextlib.contextmanager
    def started(
        self, *arguments: str, runs: Path | None = None, run: Path | None = None
    ) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
        """Start `ft recipe run` here; give the process and, as soon as it is there, its run."""
        runs = runs or self.work / "runs"
        before = set(runs.iterdir()) if runs.is_dir() else set()
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "recipe", "run", *arguments],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            new = run or wait_for(
                lambda: next((r for r in runs.iterdir() if r not in before and record(r)), None),
                alive=process,
            )
            yield process, new
        finally:
            process.kill()
            if process.stdout and not process.stdout.closed:
                process.communicate()

    def run_folder(self) -> Path:
        """The newest run."""
        return sorted((self.work / "runs").iterdir())[-1]


def events(run: Path) -> list[dict[str, Any]]:
    """All events of a run."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    """Loss by step, the last one logged for a step."""
    return {
        event["step"]: event["loss"]
        for event in events(run)
        if event["event"] == "log" and event.get("loss") is not None
    }


def record(run: Path) -> dict[str, Any]:
    """The run's record."""
    document: dict[str, Any] = json.loads((run / "run.json").read_text())
    return document


def wait_for(
    condition: Callable[[], Any], seconds: float = 240, alive: "subprocess.Popen[str] | None" = None
) -> Any:
    """Poll until the condition holds; fail at once if the process that should do it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if alive and alive.poll() is not None:
            raise AssertionError(f"it ended with {alive.returncode}: {alive.communicate()[0]}")
        try:
            value = condition()
        except (OSError, ValueError, KeyError, IndexError):
            value = None
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def in_environment(backend: str, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """A script in the backend's environment."""
    environment = find(backend)
    return subprocess.run(
        [str(environment.python), *map(str, argv)],
        env=process_environment(environment, offline=True, extra={"OMP_NUM_THREADS": "1"}),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def processes_of(run: Path) -> list[int]:
    """Processes whose command line names the run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            if str(run) in line and state != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.mark.backend
class BackendContract:
    """The tests; a subclass says which backend."""

    backend: str

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Place:
        return Place(tmp_path_factory.mktemp(cls.backend))

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls, place: Place) -> Callable[[str], Path]:
        """A finished smoke run of a recipe, made once."""
        made: dict[str, Path] = {}

        def run(recipe: str) -> Path:
            if recipe not in made:
                done = place.ft(
                    "recipe", "run", recipe, "--smoke", "--backend", cls.backend, "--json"
                )
                assert done.code == 0, done.err
                made[recipe] = Path(done.json["path"])
            return made[recipe]

        return run

    @pytest.mark.parametrize("recipe", RECIPES)
    def test_shipped_recipe_goes_through_all_stages(
        self, finished: Callable[[str], Path], recipe: str
    ) -> None:
        if not expressible(recipe, self.backend):
            pytest.skip(f"{self.backend} cannot express {recipe}")
        run = finished(recipe)
        document = record(run)
        assert document["status"] == "done"
        assert {s["status"] for s in document["stages"].values()} == {"done"}
        train = document["stages"]["train"]["facts"]
        assert (train["global_step"], train["world_size"]) == (STEPS, 1)
        assert train["loss"]["last"] < train["loss"]["first"]
        assert len(losses(run)) == STEPS
        assert train["memory"]["predicted"]["allocated"] > 0
        assert train["memory"]["measured"]["host"] > 0
        inspected = document["stages"]["inspect"]["facts"]
        assert (inspected["level"], inspected["findings"]) == ("pass", [])
        assert inspected["traced_share"] == 1.0
        assert 0.02 < inspected["trained_share"] < 0.98
        assert inspected["ends_with_stop"] == 1.0
        if "merge" in document["stages"]:
            merge = document["stages"]["merge"]["facts"]
            assert merge["max_abs_diff"] <= merge["tolerance"]
            assert merge["adapter_effect"] > 10 * merge["tolerance"]
        self._is_a_clean_model(run / "export", inspected["stop_ids"])
        assert processes_of(run) == []

    def _is_a_clean_model(self, export: Path, stops: list[int]) -> None:
        names = {path.name for path in export.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json",
                "README.md"} <= names  # fmt: skip
        assert not [name for name in names if name.startswith(("checkpoint", "optimizer"))]
        eos = json.loads((export / "generation_config.json").read_text())["eos_token_id"]
        assert set(stops) <= set(eos if isinstance(eos, list) else [eos])
        card = (export / "README.md").read_text()
        assert card.startswith("---\n")
        assert "smoke test" in card

    def test_record_says_what_ran_and_no_secret(
        self, finished: Callable[[str], Path], place: Place
    ) -> None:
        run = finished("mistral-qlora")
        document = record(run)
        assert document["environment"]["release"]
        prefix = place.environ[registry.variable(self.backend)]
        assert document["commands"]["train"][0] == f"{prefix}/bin/python"
        assert document["git"]["commit"]
        assert document["stages"]["train"]["exit_code"] == 0
        assert document["fingerprint"] in str(document["context"]["prepared"])
        assert place.ft("runs", "list", "--json").json[0]["status"] == "done"

    def test_trained_text_is_the_answer_and_its_stop(
        self, finished: Callable[[str], Path], place: Place
    ) -> None:
        run = finished("mistral-qlora")
        rows = [
            json.loads(line)
            for line in Path(record(run)["context"]["sources"][0]).read_text().splitlines()
        ]
        answers = {row["output"] for row in rows}
        done = place.ft("inspect-tokens", run, "--rows", "0-20", "--json")
        assert done.code == 0, done.err
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(run / "export" / "tokenizer.json"))
        seen = 0
        for row in done.json["rows"]:
            spans: list[list[int]] = [[]]
            for token, label in zip(row["ids"], row["labels"], strict=True):
                if label == -100:
                    spans += [[]] if spans[-1] else []
                else:
                    assert label == token
                    spans[-1].append(token)
            for span in filter(None, spans):
                text = tokenizer.decode(span, skip_special_tokens=False)
                if text.strip("</s>\n ") == "":
                    continue  # padding of a pack
                answer, _, rest = text.partition("</s>")
                assert answer.strip() in answers
                assert rest.strip() in ("", "</s>")
                seen += 1
        assert seen >= 20

    def test_the_label_report_in_all_its_forms(
        self, finished: Callable[[str], Path], place: Place, tmp_path: Path
    ) -> None:
        run, page = finished("qwen-lora-chat"), tmp_path / "report.html"
        done = place.ft("inspect-tokens", run, "--html", page, "--lengths", "--json")
        assert done.code == 0, done.err
        assert done.json["verdict"] == "pass"
        assert done.json["length_table"]["rows"] == done.json["summary"]["sequences"]
        assert {role for row in done.json["rows"] for _, _, role in row["spans"]} >= {
            "user", "assistant", "template",
        }  # fmt: skip
        assert "<!doctype html>" in page.read_text()[:100].lower()
        found = place.ft("inspect-tokens", run, "--grep", "the sum of")
        assert "rows contain 'the sum of'" in found.err
        assert "The sum of" in found.out
        assert place.ft("inspect-tokens", run, "--only-failing").code == 0
        assert place.ft("inspect-tokens", run, "--rows", "9999").code == 2
        assert place.ft("inspect-tokens", run, "--fail-on", "never").code == 2

    def test_same_data_is_not_prepared_twice_and_a_changed_file_is_never_stale(
        self, finished: Callable[[str], Path], place: Place, tmp_path: Path
    ) -> None:
        base = record(finished("mistral-qlora"))["context"]["base"]
        data = tmp_path / "d.jsonl"
        row = {"instruction": "Say yes.", "input": "", "output": "yes"}
        data.write_text((json.dumps(row) + "\n") * 20)
        recipe = write_recipe(
            tmp_path / "r.yaml",
            **{"backend": self.backend, "model.base": base, "data.sequence_length": 128,
               "data.sources": [{"path": str(data), "format": "alpaca"}]},
        )  # fmt: skip

        def prepare() -> dict[str, Any]:
            done = place.ft("preprocess", recipe, "--json")
            assert done.code == 0, done.err
            facts: dict[str, Any] = done.json["stages"]["preprocess"]["facts"]
            return {**facts, "fingerprint": done.json["fingerprint"]}

        first, second = prepare(), prepare()
        assert (first["reused"], second["reused"]) == (False, True)
        assert first["fingerprint"] == second["fingerprint"]
        data.write_text(data.read_text().replace("yes", "no"))
        third = prepare()
        assert third["reused"] is False
        shown = place.ft("inspect-tokens", recipe, "--rows", "0", "--json").json
        assert "no" in shown["rows"][0]["text"].rpartition("Response")[2]

    def test_rows_without_a_trained_token_exit_7(
        self, finished: Callable[[str], Path], place: Place, tmp_path: Path
    ) -> None:
        base = record(finished("mistral-qlora"))["context"]["base"]
        data = tmp_path / "d.jsonl"
        row = {"instruction": "word " * 4000, "input": "", "output": "yes " * 30}
        data.write_text((json.dumps(row) + "\n") * 8)
        recipe = write_recipe(
            tmp_path / "r.yaml",
            **{"backend": self.backend, "model.base": base, "data.sequence_length": 16,
               "data.overlong": "truncate",
               "data.sources": [{"path": str(data), "format": "alpaca"}]},
        )  # fmt: skip
        done = place.ft("recipe", "run", recipe)
        assert done.code == 7, done.err
        assert "[FT501]" in done.err or "[FT502]" in done.err
        assert "Traceback" not in done.err
        assert record(place.run_folder())["stages"]["train"]["status"] == "waiting"
        assert place.ft("inspect-tokens", recipe, "--rows", "0").code == 7

    def test_killed_training_resumes_to_the_same_losses(
        self, finished: Callable[[str], Path], place: Place
    ) -> None:
        # not a packed recipe: axolotl 0.19.0 goes on with other packs after a resume
        whole = losses(finished("agnews-lora"))
        with place.started("agnews-lora", "--smoke", "--backend", self.backend) as (ft, run):
            wait_for(lambda: max(losses(run)) >= STEPS // 2 + 2, alive=ft)
            os.kill(record(run)["stages"]["train"]["pid"], signal.SIGKILL)
            output, _ = ft.communicate(timeout=60)
        assert ft.returncode == 5, output
        assert record(run)["status"] == "failed"
        assert processes_of(run) == []
        done = place.ft("recipe", "run", "--resume", run, "--json")
        assert done.code == 0, done.err
        assert done.json["stages"]["preprocess"]["facts"]["reused"] is True
        facts = done.json["stages"]["train"]["facts"]
        assert facts["resumed_from"].endswith(f"checkpoint-{STEPS // 2}")
        assert losses(run) == pytest.approx(whole, rel=1e-5)

    def test_interruption_leaves_no_process_and_says_so(self, place: Place) -> None:
        with place.started("mistral-qlora", "--smoke", "--backend", self.backend) as (ft, run):
            wait_for(lambda: record(run)["stages"]["train"].get("pid"), alive=ft)
            time.sleep(2)
            assert processes_of(run)
            ft.send_signal(signal.SIGINT)
            output, _ = ft.communicate(timeout=60)
        assert ft.returncode == 130, output
        assert "Traceback" not in output
        assert "--resume" in output
        assert record(run)["status"] == "interrupted"
        assert record(run)["stages"]["train"]["status"] == "interrupted"
        assert processes_of(run) == []

    def test_killed_orchestrator_takes_its_child_along(self, place: Place) -> None:
        with place.started("mistral-qlora", "--smoke", "--backend", self.backend) as (ft, run):
            wait_for(lambda: record(run)["stages"]["train"].get("pid"), alive=ft)
            time.sleep(2)
            assert processes_of(run)
            ft.kill()
            ft.communicate(timeout=60)
            wait_for(lambda: not processes_of(run), 4)
        listed = {entry["path"]: entry for entry in place.ft("runs", "list", "--json").json}
        assert listed[str(run)]["status"] == "died"

    def test_full_disk_is_named(
        self, finished: Callable[[str], Path], place: Place, tmp_path: Path
    ) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(small)],
            check=False, capture_output=True,
        )  # fmt: skip
        if mounted.returncode:
            pytest.skip("a small file system can be mounted by root only")
        try:
            done = place.ft(
                "recipe", "run", "mistral-qlora", "--smoke", "--backend", self.backend,
                "--set", f"output.directory={small}",
            )  # fmt: skip
            assert done.code in (5, 6), done.err
            assert "disk is full" in done.err or "No space left" in done.err
            assert "Traceback" not in done.err.partition("error:")[0]
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_each_stage_alone_on_a_run(self, finished: Callable[[str], Path], place: Place) -> None:
        run = finished("mistral-qlora")
        before = (run / "export" / "README.md").stat().st_mtime_ns
        done = place.ft("export", run, "--json")
        assert done.code == 0, done.err
        assert (run / "export" / "README.md").stat().st_mtime_ns > before
        assert place.ft("train", run, "--set", "training.epochs=1").code == 2

    def test_full_fine_tune_trains_every_weight(self, finished: Callable[[str], Path]) -> None:
        run = finished("llama-full-z2")
        facts = record(run)["stages"]["train"]["facts"]["artifact"]
        assert facts["parameters"] > 100_000
        assert not (run / "adapter").exists()

    def test_backend_has_a_module(self) -> None:
        assert BACKENDS[self.backend].name == self.backend
