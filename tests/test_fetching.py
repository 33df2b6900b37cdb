"""Fetching from a hub that breaks off, damages, refuses and moves, served on this machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.backends.axolotl import data as axolotl
from orchestrator.backends.llamafactory import data as llamafactory
from orchestrator.hub import choosing
from orchestrator.recipe.models import Source
from tests.helpers import Outcome, ft, loaded, write_recipe
from tests.hub_server import Hub, HubRepository, serving

WEIGHTS = os.urandom(12_000_000)
WRITTEN = 10 * 1024 * 1024
"""huggingface_hub writes in pieces of this size; what came of the next one is lost."""
CONFIG = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
ROWS = "".join(
    json.dumps({"instruction": f"Say {i}.", "input": "", "output": str(i)}) + "\n"
    for i in range(40)
).encode()


@pytest.fixture
def hub() -> Iterator[Hub]:
    model = HubRepository(
        {
            "config.json": CONFIG,
            "tokenizer.json": b"{}",
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": WEIGHTS,
            "consolidated.safetensors": WEIGHTS,
            "original/params.json": b"{}",
            "README.md": b"text",
        }
    )
    with serving({"models/user/tiny": model, "datasets/user/words": HubRepository(
        {"train.jsonl": ROWS, "README.md": b"---\n---\n", ".gitattributes": b"x"}, "d" * 40
    )}) as server:  # fmt: skip
        yield server


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    sources = [{"path": "user/words", "format": "alpaca"}]
    return write_recipe(tmp_path / "r.yaml", **{"model.base": "user/tiny", "data.sources": sources})


def profile(tmp_path: Path) -> str:
    (tmp_path / "clusters").mkdir(exist_ok=True)
    (tmp_path / "clusters" / "toy.yaml").write_text(
        f"scratch: {tmp_path}/scratch\noffline: true\ngpus_per_node: 0\n"
    )
    return "toy"


def fetch(hub: Hub, tmp_path: Path, recipe: Path, *arguments: str) -> Outcome:
    """`ft fetch --on`: needs no backend, and makes no run."""
    return ft("fetch", recipe, "--on", profile(tmp_path), *arguments, cwd=tmp_path,
              **hub.environ(tmp_path / "home"), FT_HOME=str(tmp_path / "ft"))  # fmt: skip


def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "scratch/hf/hub/models--user--tiny/snapshots" / ("a" * 40)


def test_what_is_needed_and_nothing_else_is_fetched_once(
    hub: Hub, tmp_path: Path, recipe: Path
) -> None:
    done = fetch(hub, tmp_path, recipe, "--json")
    assert done.code == 0, done.err
    model, data = done.json["fetched"]
    assert (model["id"], model["commit"], model["path"]) == (
        "user/tiny", "a" * 40, str(snapshot(tmp_path)),
    )  # fmt: skip
    assert {file.name for file in snapshot(tmp_path).iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors",
    }  # fmt: skip
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in Path(data["path"]).iterdir()} == {"train.jsonl", "README.md"}
    assert not (tmp_path / "runs").exists()
    hub.served.clear()
    again = fetch(hub, tmp_path, recipe, "--json")
    assert (again.json["fetched"], hub.served) == (done.json["fetched"], {})
    hub.repositories.clear()
    offline = fetch(hub, tmp_path, recipe, "--offline", "--json")
    assert offline.json["fetched"] == done.json["fetched"]


def test_a_broken_download_goes_on_where_it_was(hub: Hub, tmp_path: Path, recipe: Path) -> None:
    hub.cut = {"model.safetensors": [11_000_000, None]}
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 0, done.err
    assert hub.ranges == [f"model.safetensors from {WRITTEN}"]
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_always_breaks_off_is_told_and_whole_files_are_kept(
    hub: Hub, tmp_path: Path, recipe: Path
) -> None:
    hub.cut = {"model.safetensors": [11_000_000, 0]}
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 4
    assert "the model user/tiny cannot be fetched" in done.err
    assert "run the same command again" in done.err
    assert "Traceback" not in done.err
    offline = fetch(hub, tmp_path, recipe, "--offline")
    assert (offline.code, "is not in the cache" in offline.err) == (4, True), offline.err
    hub.cut.clear()
    assert fetch(hub, tmp_path, recipe).code == 0
    assert hub.served["config.json"] == len(CONFIG)  # once
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_another_content_than_the_hub_states_is_not_kept(
    hub: Hub, tmp_path: Path, recipe: Path
) -> None:
    hub.damaged = {"model.safetensors", "config.json"}  # the same sizes, other hashes
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 4
    assert "config.json, model.safetensors is not what the hub states" in done.err
    assert not (snapshot(tmp_path) / "model.safetensors").exists()
    hub.damaged = set()
    assert fetch(hub, tmp_path, recipe).code == 0
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_is_cut_later_is_found_and_mended(
    hub: Hub, tmp_path: Path, recipe: Path
) -> None:
    assert fetch(hub, tmp_path, recipe).code == 0
    (snapshot(tmp_path) / "model.safetensors").resolve().write_bytes(WEIGHTS[:1000])
    offline = fetch(hub, tmp_path, recipe, "--offline")
    assert (offline.code, "is not in the cache" in offline.err) == (4, True)
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 0, done.err
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.revision": "v2"}, "the model user/tiny has no revision 'v2'"),
        ({"model.base": "user/tinny"}, "the hub has no model user/tinny, or it is private"),
        ({"data.sources": [{"path": "user/x", "format": "alpaca"}]}, "no dataset user/x"),
    ],
)
def test_refusals_are_one_message(
    hub: Hub, tmp_path: Path, recipe: Path, change: dict[str, object], words: str
) -> None:
    write_recipe(recipe, **{"model.base": "user/tiny", **change})
    done = fetch(hub, tmp_path, recipe)
    assert (done.code, done.err.count("how to fix")) == (4, 1)
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_gated_model_says_what_to_do(hub: Hub, tmp_path: Path, recipe: Path) -> None:
    hub.repositories["models/user/tiny"].gated = True
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 4
    assert "the model user/tiny is gated" in done.err
    assert "accept its terms" in done.err


def test_no_hub_at_all(hub: Hub, tmp_path: Path, recipe: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    done = fetch(hub, tmp_path, recipe)
    assert done.code == 4
    assert "the hub cannot be reached" in done.err


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("model-1-of-2.safetensors model-2-of-2.safetensors consolidated.safetensors",
         "model-1-of-2.safetensors model-2-of-2.safetensors"),
        ("model.safetensors model.safetensors.index.json pytorch_model.bin.index.json",
         "model.safetensors model.safetensors.index.json"),
        ("pytorch_model.bin tf_model.h5 flax_model.msgpack", "pytorch_model.bin"),
        ("weird.safetensors onnx/model.onnx original/tokenizer.model", "weird.safetensors"),
        ("model.safetensors model.fp16.safetensors tokenizer.model modeling_x.py",
         "model.safetensors modeling_x.py tokenizer.model"),
    ],
)  # fmt: skip
def test_one_format_of_weights(names: str, wanted: str) -> None:
    assert choosing.of_model([*names.split(), "config.json"]) == sorted(
        [*wanted.split(), "config.json"]
    )


SNAPSHOT = f"/cache/datasets--user--words/snapshots/{'d' * 40}"


def test_a_folder_of_the_hubs_cache_is_rendered_as_the_hub_id_would_be() -> None:
    source = Source(path="user/words", format="alpaca", subset="en", split="test", samples=5)
    made = llamafactory.entry(source, SNAPSHOT)
    assert {key: made[key] for key in ("hf_hub_url", "subset", "split")} == {
        "hf_hub_url": SNAPSHOT, "subset": "en", "split": "test[:5]",
    }  # fmt: skip
    assert "hf_hub_url" not in llamafactory.entry(source, "/data/folder")
    rendered = axolotl.dataset(loaded().recipe, source, SNAPSHOT)
    assert (rendered["path"], rendered["name"], rendered["split"]) == (SNAPSHOT, "en", "test[:5]")


def test_chosen_files_of_a_data_set_are_named_by_their_place() -> None:
    source = Source(path="user/words", format="alpaca", files=("a/1.parquet", "a/2.parquet"))
    rendered = axolotl.dataset(loaded().recipe, source, SNAPSHOT)
    assert rendered["ds_type"] == "parquet"
    assert rendered["data_files"] == [f"{SNAPSHOT}/a/1.parquet", f"{SNAPSHOT}/a/2.parquet"]
    assert axolotl.dataset(loaded().recipe, source, "user/words")["data_files"] == [
        "a/1.parquet", "a/2.parquet",
    ]  # fmt: skip
