"""Times `ft` against the backends' own commands, all in one run, and prints ratios.

Nothing here is a test: machines differ, ratios on one machine do not much. The pipeline is timed
in a ready environment (installed, twin made, data not yet prepared) against the backend's own
commands, typed one after another on the very files that `ft` rendered.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from orchestrator.environments import registry
from orchestrator.environments.environment import find, process_environment
from orchestrator.environments.locks import RELEASES
from orchestrator.yaml_out import dump

FT = [str(Path(sys.executable).with_name("ft"))]
TYPO = "training.learning_rte=1e-4"


class Bench:
    """One run of the benchmark, in a scratch folder."""

    def __init__(self, scratch: Path, repeat: int) -> None:
        self.scratch = scratch
        self.repeat = repeat
        self.results: dict[str, float] = {}

    def time(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
        repeat: int = 1, expect: int = 0,
    ) -> float:  # fmt: skip
        """Median wall time (s) of `repeat` runs, after an untimed one if there are several."""
        times = []
        for attempt in range(repeat + (repeat > 1)):
            begin = time.perf_counter()
            done = subprocess.run(
                argv, cwd=self.scratch, env=dict(env or self.environment()), capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if done.returncode != expect:
                sys.exit(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            if attempt or repeat == 1:
                times.append(time.perf_counter() - begin)
        self.results[name] = statistics.median(times)
        print(f"{name:<46} {self.results[name]:8.2f} s", flush=True)
        return self.results[name]

    def environment(self) -> dict[str, str]:
        """Ours, with a home in the scratch folder and the environments that are installed."""
        prefixes = {registry.variable(name): str(find(name).prefix) for name in RELEASES}
        return {**os.environ, **prefixes, "FT_HOME": str(self.scratch / "home")}

    def backend_environment(self, backend: str) -> dict[str, str]:
        """A backend's environment as a careful user would have it."""
        env = process_environment(find(backend), offline=True)
        if backend == "llamafactory":  # its console script needs torchaudio, see the README
            stub = self.scratch / "stub" / "torchaudio"
            stub.mkdir(parents=True, exist_ok=True)
            (stub / "__init__.py").write_text('__version__ = "0"\n')
            env["PYTHONPATH"] = str(stub.parent)
        return env

    def startup(self) -> None:
        """How long until anything is on the screen."""
        ours = self.time("ft --help", [*FT, "--help"], repeat=self.repeat)
        self.time(
            "ft recipe run with a misspelled key",
            [*FT, "recipe", "run", "mistral-qlora", "--set", TYPO],
            repeat=self.repeat,
            expect=2,
        )
        for backend, words in (("axolotl", ["axolotl", "--help"]),
                               ("llamafactory", ["llamafactory-cli", "version"])):  # fmt: skip
            program = str(find(backend).prefix / "bin" / words[0])
            theirs = self.time(
                " ".join(words), [program, *words[1:]], env=self.backend_environment(backend),
                repeat=min(self.repeat, 2),
            )  # fmt: skip
            self.results[f"{' '.join(words)} / ft --help"] = theirs / ours

    def pipeline(self, backend: str) -> None:
        """The whole recipe against the backend's own commands on the same files."""
        words = ["recipe", "run", "mistral-qlora", "--smoke", "--backend", backend, "--json"]
        warm = subprocess.run(
            [*FT, *words], cwd=self.scratch, env=self.environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if warm.returncode:
            sys.exit(warm.stderr)
        run = json.loads(warm.stdout)
        prepared = Path(run["context"]["prepared"])
        shutil.rmtree(prepared)
        ours = self.time(f"ft recipe run mistral-qlora --smoke ({backend})", [*FT, *words])
        commands = self._by_hand(backend, Path(run["path"]), prepared)
        env = {**self.backend_environment(backend), "OMP_NUM_THREADS": "1"}
        theirs = sum(self.time(name, argv, env=env) for name, argv in commands)
        self.results[f"{backend} by hand / ft"] = theirs / ours
        print(f"{backend + ' by hand, all commands':<46} {theirs:8.2f} s")

    def labels(self, rows: int) -> None:
        """The label report on many rows, beside the backend's own preprocessing of them."""
        words = ["fetch", "qwen-lora-chat", "--smoke", "--json"]
        made = subprocess.run(
            [*FT, *words], cwd=self.scratch, env=self.environment(), capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        data, recipe = self.scratch / "chats.jsonl", self.scratch / "labels.yaml"
        data.write_text("".join(conversations(rows)))
        document = {
            "name": "labels",
            "model": {"base": json.loads(made.stdout)["context"]["base"]},
            "data": {
                "sources": [{"path": str(data), "format": "messages"}],
                "chat_template": "qwen25",
            },
            "training": {"learning_rate": 1e-4, "epochs": 1},
        }
        recipe.write_text(dump(document))
        name = f"axolotl preprocess, {rows:,} rows"
        theirs = self.time(name, [*FT, "preprocess", str(recipe)])
        look = [*FT, "inspect-tokens", str(recipe)]
        first = self.time(f"label report, {rows:,} rows", look)
        again = self.time("label report, second look", look, repeat=self.repeat)
        self.results["label report, rows per second"] = rows / (first - again)
        self.results["preprocess / label report"] = theirs / first
        speed = self.results["label report, rows per second"]
        print(f"{'label report without start-up':<46} {speed:8,.0f} rows/s")

    def _by_hand(self, backend: str, run: Path, prepared: Path) -> list[tuple[str, list[str]]]:
        """The backend's commands on the rendered files, writing to a folder of their own."""
        mine = self.scratch / f"{backend}-by-hand"
        mine.mkdir()
        moved = {str(prepared): str(mine / "prepared"), str(run / "adapter"): str(mine / "adapter"),
                 str(run / "merged"): str(mine / "merged")}  # fmt: skip
        for file in (run / "rendered").glob("*.yaml"):
            config = yaml.safe_load(file.read_text())
            for key, value in config.items():
                config[key] = moved.get(value, value) if isinstance(value, str) else value
            if backend == "llamafactory":
                config.pop("tokenized_path", None)
            (mine / file.name).write_text(dump(config))
        program = find(backend).prefix / "bin"
        if backend == "axolotl":
            steps = {"preprocess": "preprocess", "train": "train", "merge-lora": "merge"}
            return [
                (f"axolotl {word}", [str(program / "axolotl"), word, str(mine / f"{name}.yaml")])
                for word, name in steps.items()
            ]
        cli = str(program / "llamafactory-cli")
        return [
            (f"llamafactory-cli {word}", [cli, word, str(mine / f"{name}.yaml")])
            for word, name in {"train": "train", "export": "merge"}.items()
        ]


def conversations(rows: int) -> Iterator[str]:
    """Chats of about 300 tokens, all different, the same in every run."""
    rng = random.Random("ft-bench")
    vocabulary = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9)))
                  for _ in range(5000)]  # fmt: skip

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(low, high)))

    for _ in range(rows):
        turns = []
        for _ in range(rng.choice((1, 2, 3))):
            turns.append({"role": "user", "content": text(5, 20)})
            turns.append({"role": "assistant", "content": text(10, 40)})
        yield json.dumps({"messages": turns}) + "\n"


def main() -> None:
    """Measure, and print the ratios last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="runs of the quick commands")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the label report")
    parser.add_argument("--quick", action="store_true", help="start-up times only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ft-bench-") as scratch:
        bench = Bench(Path(scratch), options.repeat)
        bench.startup()
        if not options.quick:
            bench.pipeline("axolotl")
            bench.pipeline("llamafactory")
            bench.labels(options.rows)
    print("\nratios (above 1: ft is faster)")
    for name, value in bench.results.items():
        if "/" in name:
            print(f"{name:<46} {value:8.2f}")
    if options.json:
        options.json.write_text(json.dumps(bench.results, indent=2) + "\n")


if __name__ == "__main__":
    main()
