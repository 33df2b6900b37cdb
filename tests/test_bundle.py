"""Bundles: made, broken off, damaged, unpacked; their packages install without a network."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from orchestrator.bundle import making, manifest
from orchestrator.bundle.manifest import Manifest
from orchestrator.bundle.placing import place
from orchestrator.environments import install, wheels
from orchestrator.errors import BackendEnvironmentError, UsageError
from orchestrator.files import write_json
from orchestrator.hub import cache
from orchestrator.hub.cache import RemoteFile, Repository, Snapshot
from tests.helpers import Outcome, ft, write_recipe
from tests.hub_server import Hub, HubRepository, serving
from tests.test_environments_install import Sources, run, sources

__all__ = ["sources"]  # a fixture

COMMIT = "b" * 40


@pytest.fixture
def hub() -> Iterator[Hub]:
    model = HubRepository({"config.json": b"{}", "model.safetensors": b"w" * 9000}, COMMIT)
    data = HubRepository({"train.jsonl": b'{"instruction": "a", "output": "b"}\n'}, COMMIT)
    with serving({"models/user/tiny": model, "datasets/user/words": data}) as server:
        yield server


class Site:
    """The two ends of the way."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.here, self.there = hub, folder / "here", folder / "there"
        self.here.mkdir()
        self.there.mkdir()
        self.rows = self.here / "rows.jsonl"
        self.rows.write_text('{"instruction": "x", "output": "y"}\n' * 3)
        (self.here / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
        self.recipe = write_recipe(self.here / "r.yaml", **{
            "model.base": "user/tiny",
            "data.sources": [{"path": "rows.jsonl", "format": "alpaca"},
                             {"path": "user/words", "format": "alpaca"}],
        })  # fmt: skip

    def pack(self, *arguments: str) -> Outcome:
        """Make the bundle where there is a network."""
        return ft("fetch", self.recipe, "--bundle", self.there / "b", "--no-wheels", *arguments,
                  cwd=self.here, **self.hub.environ(self.here / "hf"),
                  FT_HOME=str(self.here / "ft"))  # fmt: skip

    def at_the_other_site(self, *arguments: str | Path) -> Outcome:
        """A command where there is none."""
        environ = {**self.hub.environ(self.there / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        return ft(*arguments, cwd=self.there, **environ, FT_HOME=str(self.there / "ft"))


@pytest.fixture
def site(hub: Hub, tmp_path: Path) -> Site:
    return Site(hub, tmp_path)


def test_a_bundle_brings_model_data_and_recipe(site: Site) -> None:
    made = site.pack("--json", "--set", "output.directory=.")
    assert made.code == 0, made.err
    shutil.rmtree(site.here)
    done = site.at_the_other_site("fetch", "--from-bundle", "b", "--json")
    assert done.code == 0, done.err
    assert done.json["next"] == ["ft recipe run b/recipe.yaml --offline"]
    model, data = done.json["fetched"]
    assert Path(model["path"], "model.safetensors").read_bytes() == b"w" * 9000
    damaged = Path(model["path"], "model.safetensors").resolve()
    damaged.unlink()
    damaged.write_bytes(b"x" * 9000)
    assert site.at_the_other_site("fetch", "--from-bundle", "b").code == 0
    assert damaged.read_bytes() == b"w" * 9000
    plan = site.at_the_other_site("recipe", "plan", "b/recipe.yaml", "--offline", "--json")
    assert plan.code == 0, plan.err
    rendered = plan.json["files"]["preprocess.yaml"]
    rows = next((site.there / "b/data").iterdir())
    assert rows.read_text().count("\n") == 3
    for path in (model["path"], data["path"], str(rows)):  # nothing is named by hub id
        assert path in rendered


def test_a_bundle_that_was_broken_off_is_recognised_and_goes_on(site: Site) -> None:
    whole = site.hub.repositories.pop("datasets/user/words")
    assert site.pack().code == 4
    done = site.at_the_other_site("fetch", "--from-bundle", "b")
    assert done.code == 4
    assert "is not finished" in done.err
    site.hub.repositories["datasets/user/words"] = whole
    site.hub.served.clear()
    spread = {"strategy": "deepspeed", "deepspeed_file": "zero.json", "gpus": "2"}
    settings = [f"--set=distributed.{name}={value}" for name, value in spread.items()]
    assert site.pack(*settings).code == 0
    assert set(site.hub.served) == {"train.jsonl"}
    assert site.at_the_other_site("fetch", "--from-bundle", "b").code == 0
    shutil.rmtree(site.here)
    shown = site.at_the_other_site("recipe", "show", "b/recipe.yaml", "--resolved", "--json").json
    assert shown["distributed"]["deepspeed_file"] == "./files/zero.json"
    assert "stage" in (site.there / "b/files/zero.json").read_text()


def test_damage_on_the_way_is_named_and_nothing_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    bundle = tmp_path / "b"
    manifest.begin(bundle)
    for name in ("cut", "other", "gone", "right"):
        (bundle / name).write_text("text" * 100)
    manifest.finish(bundle, Manifest(
        version=1, ft="0", made="", recipe="r", backend="axolotl", repositories=[], wheels=None,
        files=manifest.listed(bundle, silent),
    ))  # fmt: skip
    place(bundle, print, silent)
    (bundle / "cut").write_text("text" * 99)
    (bundle / "other").write_text("test" * 100)
    (bundle / "gone").unlink()
    with pytest.raises(BackendEnvironmentError) as e:
        place(bundle, print, silent)
    assert e.value.message.endswith(
        "cut has 396 bytes instead of 400, gone is missing, other has another content"
    )
    assert not (tmp_path / "hub").exists()


def test_what_is_no_bundle_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no bundle"):
        manifest.read(tmp_path)
    (tmp_path / "mine.txt").write_text("x")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageError, match="something else than a bundle"):
            manifest.begin(taken)
    path = {"path": "../../evil", "size": 1, "sha256": "0"}
    write_json(tmp_path / "manifest.json", {
        "version": 1, "ft": "0", "made": "", "recipe": "r", "backend": "axolotl",
        "repositories": [], "wheels": None, "files": [path],
    })  # fmt: skip
    with pytest.raises(BackendEnvironmentError, match=r"files\.0\.path"):
        manifest.read(tmp_path)


def silent(done: int, total: int) -> None:
    """Progress that nobody sees."""


def test_packages_of_a_lock_are_gathered_and_installed_with_nothing_else(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = sources.wheel("torch", "2.13.0+cpu")
    lock = sources.lock(sources.wheel("tiny", "1.0"), torch)
    folder = tmp_path / "bundle"
    packed = making._packages(lock, folder, lambda text: None)
    assert sorted(path.name for path in (folder / packed.folder).iterdir()) == [
        "tiny-1.0-py3-none-any.whl", "torch-2.13.0+cpu-py3-none-any.whl",
    ]  # fmt: skip
    shutil.rmtree(sources.folder)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    shutil.copytree(folder / packed.folder, wheels.folder_of(lock))
    with pytest.raises(BackendEnvironmentError):
        install.install("tiny")  # half of the packages may be there
    wheels.complete(lock)
    environment = install.install("tiny")
    assert run(environment.bin, "tiny") == "tiny 1.0"
    assert environment.stamp["lock"] == lock.digest


def test_a_package_that_cannot_be_had_is_named(sources: Sources, tmp_path: Path) -> None:
    lock = sources.lock(sources.wheel("tiny", "1.0"), sources.wheel("torch", "2.13.0+cpu"))
    (sources.folder / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    with pytest.raises(BackendEnvironmentError, match="packages of tiny cannot be downloaded") as e:
        wheels.gather(lock, tmp_path / "w", lambda text: None)
    assert "torch" in e.value.detail
    assert "--no-wheels" in e.value.hint


def test_a_cache_without_links_is_packed_and_placed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two files of one name and size, as plain files, as exFAT or a Windows share has them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "plain"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "train.jsonl").write_text(f'{{"text": "{name}"}}\n')
    repository = Repository("dataset", "user/words")
    carried = making._repository(Snapshot(repository, COMMIT, folder), tmp_path / "bundle")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    files = tuple(RemoteFile(f.path, f.size, f.digest) for f in carried.files)
    placed = cache.place(
        Snapshot(repository, COMMIT, folder, files), tmp_path / "bundle" / carried.folder
    )
    for name in ("a", "b"):
        assert (placed.folder / name / "train.jsonl").read_text() == f'{{"text": "{name}"}}\n'
    assert cache.differing(placed.folder, files) == []
