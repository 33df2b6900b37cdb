"""Fetching from a hub that breaks off, damages, refuses and moves, served on this machine."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from orchestrator.backends.axolotl import data as axolotl
from orchestrator.backends.llamafactory import data as llamafactory
from orchestrator.errors import BackendEnvironmentError
from orchestrator.exporting import name_base
from orchestrator.fetching import Places, base_of, fetch_needed
from orchestrator.hub import choosing
from orchestrator.hub.cache import RemoteFile, Repository
from orchestrator.hub.fetch import _enough_room, fetch, from_cache
from orchestrator.hub.local import flaw
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


MODEL = Repository("model", "user/tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and this process using it with a cache of its own."""
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
    data = HubRepository(
        {"train.jsonl": ROWS, "README.md": b"---\n---\n", ".gitattributes": b"x"}, "d" * 40
    )
    onnx = HubRepository({"config.json": CONFIG, "model.onnx": WEIGHTS})
    with serving(
        {"models/user/tiny": model, "models/user/onnx": onnx, "datasets/user/words": data}
    ) as server:
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_to_a_cluster_what_is_needed_and_nothing_else_is_fetched_once(
    hub: Hub, tmp_path: Path
) -> None:
    """The command, which needs no backend and makes no run."""
    sources = [{"path": "user/words", "format": "alpaca"}]
    recipe = write_recipe(
        tmp_path / "r.yaml", **{"model.base": "user/tiny", "data.sources": sources}
    )
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "toy.yaml").write_text(
        f"scratch: {tmp_path}/scratch\noffline: true\ngpus_per_node: 0\n"
    )

    def run(*options: str) -> Outcome:
        return ft("fetch", recipe, "--on", "toy", "--json", *options, cwd=tmp_path,
                  **hub.environ(tmp_path / "home"), FT_HOME=str(tmp_path / "ft"))  # fmt: skip

    done = run()
    assert done.code == 0, done.err
    model, data = done.json["fetched"]
    folder = tmp_path / "scratch/hf/hub/models--user--tiny/snapshots" / ("a" * 40)
    assert (model["id"], model["commit"], model["path"]) == ("user/tiny", "a" * 40, str(folder))
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors",
    }  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in Path(data["path"]).iterdir()} == {"train.jsonl", "README.md"}
    assert not (tmp_path / "runs").exists()
    hub.repositories.clear()
    assert run("--offline").json["fetched"] == done.json["fetched"]
    refused = run()
    assert (refused.code, refused.err.count("how to fix")) == (4, 1)
    assert "the hub has no model user/tiny" in refused.err


def test_what_is_there_is_not_fetched_again(hub: Hub) -> None:
    first = fetch(MODEL)
    hub.served.clear()
    assert (fetch(MODEL), hub.served) == (first, {})
    assert from_cache(MODEL) == first


def test_a_broken_download_goes_on_where_it_was(hub: Hub) -> None:
    hub.cut = {"model.safetensors": [11_000_000, None]}
    made = fetch(MODEL)
    assert hub.ranges == [f"model.safetensors from {WRITTEN}"]
    assert (made.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_always_breaks_off_is_told_and_whole_files_are_kept(hub: Hub) -> None:
    hub.cut = {"model.safetensors": [0]}
    with pytest.raises(BackendEnvironmentError, match="the model user/tiny cannot be fetched") as e:
        fetch(MODEL)
    assert "run the same command again" in e.value.hint
    with pytest.raises(BackendEnvironmentError, match="is not in the cache"):
        from_cache(MODEL)
    hub.cut.clear()
    made = fetch(MODEL)
    assert hub.served["config.json"] == len(CONFIG)  # once
    assert (made.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_another_content_than_the_hub_states_is_not_kept(hub: Hub) -> None:
    hub.damaged = {"model.safetensors", "config.json"}  # the same sizes, other hashes
    words = "config.json, model.safetensors is not what the hub states"
    with pytest.raises(BackendEnvironmentError, match=words):
        fetch(MODEL)
    with pytest.raises(BackendEnvironmentError, match="is not in the cache"):
        from_cache(MODEL)
    hub.damaged = set()
    assert (fetch(MODEL).folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_is_cut_later_is_found_and_mended(hub: Hub) -> None:
    weights = fetch(MODEL).folder / "model.safetensors"
    weights.resolve().write_bytes(WEIGHTS[:1000])
    with pytest.raises(BackendEnvironmentError, match="is not in the cache"):
        from_cache(MODEL)
    fetch(MODEL)
    assert weights.read_bytes() == WEIGHTS


def test_a_disk_that_is_full_is_no_fault_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", **{"model.base": "user/tiny"})
    done = ft("fetch", recipe, "--on", "slurm-generic",
              before=["bash", "-c", 'ulimit -f 4000; exec "$@"', "-"], cwd=tmp_path,
              **hub.environ(tmp_path / "home"))  # fmt: skip
    assert (done.code, "cannot be kept in" in done.err) == (4, True), done.err
    assert "File too large" in done.err
    assert "the network" not in done.err


def test_what_does_not_fit_on_the_disk_is_not_begun(hub: Hub) -> None:
    files = (RemoteFile("model.safetensors", 10**18, "a" * 64),)
    with pytest.raises(BackendEnvironmentError, match=r"needs 1,000,000,000\.0 GB in .* are free"):
        _enough_room(MODEL, "a" * 40, files)


def test_a_tokenizer_that_another_program_has_left_is_no_model(hub: Hub) -> None:
    folder = fetch(MODEL).folder
    shutil.rmtree(Path(constants.HF_HUB_CACHE) / "models--user--tiny" / "ft")
    with pytest.raises(BackendEnvironmentError, match=r"in part only: .*safetensors file"):
        from_cache(MODEL)
    (folder / "model.safetensors").resolve().write_bytes(WHOLE)
    assert from_cache(MODEL).folder == folder
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackendEnvironmentError, match="in part only: it has no weights"):
        from_cache(MODEL)


def test_what_others_have_fetched_is_used_where_nothing_can_be_written(hub: Hub) -> None:
    fetch(MODEL)
    receipts = Path(constants.HF_HUB_CACHE) / "models--user--tiny" / "ft"
    shutil.rmtree(receipts)
    receipts.write_text("not a folder")
    hub.served.clear()
    assert len(fetch(MODEL).files) == 3
    assert hub.served == {}


@pytest.mark.parametrize(
    ("status", "words"), [(401, "HF_TOKEN"), (429, "wait some minutes"), (503, "a fault")]
)
def test_answers_of_the_hub_have_a_way_out(hub: Hub, status: int, words: str) -> None:
    hub.repositories["models/user/tiny"].status = status
    with pytest.raises(BackendEnvironmentError) as e:
        fetch(MODEL)
    assert words in e.value.hint


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        (Repository("model", "user/tiny", "v2"), "the model user/tiny has no revision 'v2'"),
        (Repository("model", "user/tinny"), "the hub has no model user/tinny, or it is private"),
        (Repository("dataset", "user/x"), "the hub has no dataset user/x"),
        (Repository("dataset", "user/words", None, ("*.csv",)), r"words has no \*.csv"),
        (Repository("model", "user/onnx"), "the model user/onnx has no weights that transformers"),
    ],
)
def test_refusals_say_what_is_not_there(hub: Hub, repository: Repository, words: str) -> None:
    with pytest.raises(BackendEnvironmentError, match=words) as e:
        fetch(repository)
    assert e.value.hint


def test_a_gated_model_says_what_to_do(hub: Hub) -> None:
    hub.repositories["models/user/tiny"].gated = True
    with pytest.raises(BackendEnvironmentError, match="the model user/tiny is gated") as e:
        fetch(MODEL)
    assert "accept its terms" in e.value.hint


def test_no_hub_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BackendEnvironmentError, match="the hub cannot be reached"):
        fetch(MODEL)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
TENSOR = b'{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}'
WHOLE = len(TENSOR).to_bytes(8, "little") + TENSOR + b"abcd"
INDEX = json.dumps({"weight_map": {"x": "model-1-of-2.safetensors",
                                   "y": "model-2-of-2.safetensors"}}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.safetensors": WHOLE, "pytorch_model.bin": POINTER}, ""),
        ({"pytorch_model.bin": b"pickled"}, ""),
        ({"model.safetensors": POINTER}, "model.safetensors is only a pointer of Git LFS"),
        ({"model.safetensors": WHOLE, "tokenizer.json": POINTER}, "tokenizer.json is only a"),
        ({"model.gguf": WHOLE}, "it has no weights that transformers reads"),
        ({"model.safetensors": WHOLE[:-1]}, "is cut short"),
        (
            {"model-1-of-2.safetensors": WHOLE, "model.safetensors.index.json": INDEX},
            "model-2-of-2.safetensors, which model.safetensors.index.json names, is missing",
        ),
    ],
)
def test_a_model_of_ones_own_is_whole_before_anything_waits_for_it(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    for name, content in {"config.json": CONFIG, **files}.items():
        (tmp_path / name).write_bytes(content)
    found = flaw(tmp_path)
    assert (words in found, bool(found)) == (True, bool(words)), found
    recipe = loaded(**{"model.base": str(tmp_path)}).recipe
    here = Places(str(tmp_path), ("/data.jsonl",), ())
    if words:
        with pytest.raises(BackendEnvironmentError, match="is not whole"):
            fetch_needed(recipe, here, offline=True, say=print)
    else:
        assert fetch_needed(recipe, here, offline=True, say=print) == []


def test_a_model_that_starts_from_random_weights_needs_none(hub: Hub, tmp_path: Path) -> None:
    fresh = {"adapter.type": "none", "model.from_scratch": True}
    recipe = loaded(**fresh, **{"model.base": "user/onnx"}).recipe
    assert [file.path for file in fetch(base_of(recipe)).files] == ["config.json"]
    (tmp_path / "config.json").write_bytes(CONFIG)
    assert flaw(tmp_path, weights=False) == ""


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


def test_an_adapter_of_such_a_base_names_it_by_hub_id(tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    for trained_on, expected in ((SNAPSHOT, "user/tiny"), ("/models/mine", "/models/mine")):
        file.write_text(json.dumps({"base_model_name_or_path": trained_on, "r": 8}))
        name_base(tmp_path, "user/tiny", trained_on)
        assert json.loads(file.read_text()) == {"base_model_name_or_path": expected, "r": 8}
