"""The contract on the real LLaMA-Factory, and what one backend shows for both."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import write_recipe
from tests.smoke.contract import BackendContract, Place, losses, record
from tests.test_shortage import memory_limit


class TestLlamaFactory(BackendContract):
    backend = "llamafactory"

    def test_out_of_memory_is_answered_by_a_smaller_micro_batch(
        self, finished: Callable[[str], Path], place: Place, tmp_path: Path
    ) -> None:
        """The kernel kills it in the third step, whose rows are long; that step is then done in
        two passes, from the checkpoint of the second, as if it had never been otherwise."""
        recipe = long_rows_last(tmp_path, record(finished("mistral-qlora"))["context"]["base"])
        with memory_limit(f"ft-test-{tmp_path.name}", 1650 << 20) as inside:
            done = place.ft("recipe", "run", recipe, "--on-oom", "retry", "--json", before=inside)
        assert done.code == 0, done.err
        first, *_, last = done.json["attempts"]
        assert (first["kind"], first["amounts"]["total"]) == ("killed", 1650 << 20)
        assert (last["reason"], Path(last["resumed_from"]).name) == (None, "checkpoint-2")
        settings = [argument for change in last["change"] for argument in ("--set", change)]
        small = place.ft("recipe", "run", recipe, *settings, "--json")
        assert small.code == 0, small.err
        assert "attempts" not in small.json
        expected = losses(Path(small.json["path"]))
        assert losses(Path(done.json["path"])) == pytest.approx(expected, rel=1e-5)
        assert sorted(expected) == [1, 2, 3]


def long_rows_last(folder: Path, base: str) -> Path:
    """A recipe of three steps of 16 rows, in the order of the file: two short ones, a long one."""
    rows = [
        {"instruction": f"Say yes {i}.", "input": "", "output": f"yes it is {i}"}
        for i in range(32)
    ] + [
        {"instruction": f"Say a lot {i}. " + "yes it is " * 120, "input": "",
         "output": "it is " * 30}
        for i in range(16)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_recipe(
        folder / "long.yaml",
        **{"backend": "llamafactory", "model.base": base, "model.dtype": "float32",
           "model.attention": "eager", "data.sequence_length": 2048, "data.shuffle": False,
           "data.sources": [{"path": str(folder / "rows.jsonl"), "format": "alpaca"}],
           "training.epochs": None, "training.steps": 3, "training.save": 2,
           "training.log_every": 1, "training.micro_batch_size": 16,
           "training.gradient_checkpointing": False, "output.merge": False,
           "output.export": False},
    )  # fmt: skip
