"""Installing for real: uv, a lock with hashes, packages made on the spot, no network.

`tiny` stands in for a backend. One of its packages is a source package whose build waits as long as
a file called `hold` is there, so that an install can be stopped in the middle.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import ui
from orchestrator.environments import home, install, locks, registry, torch_build
from orchestrator.environments.environment import STAMP, EnvironmentMissing, ensure, find
from orchestrator.environments.install import make
from orchestrator.environments.torch_build import TorchBuild
from orchestrator.errors import BackendEnvironmentError

CPU = TorchBuild("cpu", "cpu", "a test")
OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

SLOW_BACKEND = """
import pathlib, shutil, time
HERE = pathlib.Path({sources!r})
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    (HERE / "building").touch()
    deadline = time.monotonic() + 60
    while (HERE / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    name = "slow-1.0-py3-none-any.whl"
    shutil.copy(HERE / "built" / name, pathlib.Path(wheel_directory) / name)
    return name
"""


class Sources:
    """A folder of packages and a folder of locks."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "packages"
        self.locks = root / "locks"
        for folder in (self.folder, self.folder / "built", self.locks):
            folder.mkdir(parents=True)
        self.hold = self.folder / "hold"

    def wheel(self, name: str, version: str, files: dict[str, str] | None = None) -> str:
        """Make a wheel and return its requirement with its hash."""
        return self._requirement(name, version, self._wheel(self.folder, name, version, files))

    def slow(self) -> str:
        """Make the source package whose build can be held up; return its requirement."""
        self._wheel(self.folder / "built", "slow", "1.0", None)
        system = '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'
        content = {
            "pyproject.toml": f'{system}[project]\nname = "slow"\nversion = "1.0"\n',
            "slow.py": SLOW_BACKEND.format(sources=str(self.folder)),
            "PKG-INFO": "Metadata-Version: 2.2\nName: slow\nVersion: 1.0\n",
        }
        path = self.folder / "slow-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, text in content.items():
                member = tarfile.TarInfo(f"slow-1.0/{name}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        return self._requirement("slow", "1.0", path)

    def lock(self, *requirements: str, build: locks.Build = "cpu") -> locks.Lock:
        """The lock of `tiny` for a build."""
        path = self.locks / f"tiny-{build}.txt"
        path.write_text("# a lock\n" + "".join(requirements))
        return locks.Lock("tiny", "1.0", build, path)

    @staticmethod
    def _requirement(name: str, version: str, path: Path) -> str:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"

    @staticmethod
    def _wheel(folder: Path, name: str, version: str, files: dict[str, str] | None) -> Path:
        information = f"{name}-{version}.dist-info"
        content = {
            f"{name}/__init__.py": f"def main():\n    print('{name} {version}')\n",
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            f"{information}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
            **(files or {}),
        }
        record = ""
        for where, text in content.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record += f"{where},sha256={digest.decode()},{len(text.encode())}\n"
        path = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for where, text in content.items():
                archive.writestr(where, text)
            archive.writestr(f"{information}/RECORD", f"{record}{information}/RECORD,,\n")
        return path


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """A machine whose only packages are ours, and where `tiny` is the only backend."""
    made = Sources(tmp_path)
    for name in os.environ:
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    for name, value in {
        "FT_HOME": tmp_path / "ft-home",
        "UV_CACHE_DIR": tmp_path / "cache",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": made.folder,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(locks, "FOLDER", made.locks)
    monkeypatch.setattr(locks, "RELEASES", {"tiny": "1.0"})
    monkeypatch.setattr(locks, "PYTHONS", {"cpu": (OWN_PYTHON,), "cuda": (OWN_PYTHON,)})
    monkeypatch.setattr(torch_build, "nvidia_driver", lambda: None)
    return made


def run(environment_bin: Path, program: str) -> str:
    """What a program of an environment prints."""
    done = subprocess.run([environment_bin / program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def folders() -> list[str]:
    """The environments' folders, finished or not."""
    return sorted(path.name for path in home.environments_folder().iterdir() if path.is_dir())


def test_installed_once_and_used_from_then_on(sources: Sources) -> None:
    torch = sources.wheel("torch", "2.13.0+cpu")
    lock = sources.lock(sources.wheel("tiny", "1.0"), torch)
    environment = ensure("tiny", install=True)
    assert environment.prefix.name == f"tiny-1.0-cpu-{lock.digest}"
    assert run(environment.bin, "tiny") == "tiny 1.0"
    stamp = environment.stamp
    assert (stamp["build"], stamp["torch"], stamp["lock"]) == ("cpu", "2.13.0+cpu", lock.digest)
    assert find("tiny") == environment

    log = Path(f"{environment.prefix}.log").stat().st_mtime_ns
    assert install.install("tiny") == environment
    assert make(lock, CPU) == environment
    assert Path(f"{environment.prefix}.log").stat().st_mtime_ns == log, "uv ran again"
    assert install.install("tiny", reinstall=True).prefix == environment.prefix
    assert Path(f"{environment.prefix}.log").stat().st_mtime_ns != log


def test_a_changed_lock_is_another_environment(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli.main import run as ft

    monkeypatch.setattr(ui.screen, "json_mode", False)  # and so it is again afterwards
    torch = sources.wheel("torch", "2.13.0+cpu")
    sources.lock(sources.wheel("tiny", "1.0"), torch)
    old = install.install("tiny")
    sources.lock(sources.wheel("tiny", "1.0"), torch, sources.wheel("extra", "3"))
    with pytest.raises(EnvironmentMissing, match="another lock"):
        find("tiny")
    monkeypatch.setattr(torch_build, "has_cpu_torch", lambda lock, environ: False)
    new = ensure("tiny", install=True)
    assert new.stamp["build"] == "cpu", "the build stays"
    assert new.prefix != old.prefix
    assert registry.installed(old.prefix) == old
    capfd.readouterr()
    assert ft(["backend", "list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["backends"]
    assert {row["prefix"]: row["state"] for row in rows} == {
        str(new.prefix): "in use",
        str(old.prefix): "outdated",
    }
    assert ft(["backend", "remove", "tiny"]) == 0
    assert folders() == [old.prefix.name]
    assert ft(["backend", "remove", "tiny"]) == 4
    assert ft(["backend", "remove", "tiny", "--all"]) == 0
    assert folders() == []
    with pytest.raises(EnvironmentMissing, match="no environment for tiny yet"):
        find("tiny")


def test_auto_gets_another_build_where_there_is_a_gpu(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = sources.wheel("tiny", "1.0")
    sources.lock(tiny, sources.wheel("torch", "2.13.0+cpu"))
    # `==2.13.0` would take the 2.13.0+cpu beside it; hence `===` in the shipped CUDA locks too.
    torch = sources.wheel("torch", "2.13.0").replace("==", "===")
    sources.lock(tiny, torch, build="cuda")
    assert install.install("tiny").stamp["torch"] == "2.13.0+cpu"
    monkeypatch.setattr(torch_build, "nvidia_driver", lambda: 590)
    assert install.install("tiny").stamp["build"] == "cuda"
    monkeypatch.setattr(torch_build, "nvidia_driver", lambda: None)
    assert install.install("tiny").stamp["build"] == "cuda", "a CUDA build runs without a GPU too"
    assert install.install("tiny", torch="cpu").stamp["build"] == "cpu"
    assert find("tiny").stamp["build"] == "cpu", "the last one asked for is in use"


def test_a_cpu_build_of_torch_is_looked_for_in_the_sources(sources: Sources) -> None:
    lock = sources.lock("torch==2.13.0+cpu \\\n    --hash=sha256:00\n")
    assert not torch_build.has_cpu_torch(lock)
    sources.wheel("torch", "2.13.0")
    assert not torch_build.has_cpu_torch(lock)
    sources.wheel("torch", "2.13.0+cpu")
    assert torch_build.has_cpu_torch(lock)


def test_another_build_of_torch_comes_apart_from_the_lock(sources: Sources) -> None:
    lock = sources.lock(
        sources.wheel("tiny", "1.0"),
        "torch===2.13.0 \\\n    --hash=sha256:00\n",
        "nvidia-cudnn-cu13==9 \\\n    --hash=sha256:00\n",
        build="cuda",
    )
    sources.wheel("torch", "2.13.0+cu126")
    # With a name for `backend` uv would ask PyTorch's own index, which a test must not need.
    build = TorchBuild("cu126", "cuda", "a test", backend="", replaced=True)
    environment = make(lock, build)
    assert environment.stamp["torch"] == "2.13.0+cu126"
    assert environment.prefix.name == f"tiny-1.0-cu126-{lock.digest}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tiny: tiny.replace("sha256:", "sha256:0")[:-2] + "\n", "another file than"),
        (lambda tiny: tiny.replace("1.0", "2.0"), "no package source has a file"),
    ],
    ids=["hash", "version"],
)
def test_a_failed_install_says_why_and_leaves_nothing(
    sources: Sources, spoil: Callable[[str], str], message: str
) -> None:
    lock = sources.lock(spoil(sources.wheel("tiny", "1.0")))
    with pytest.raises(BackendEnvironmentError, match=message) as caught:
        make(lock, CPU)
    assert "tiny" in caught.value.detail
    assert str(lock.digest) in caught.value.hint, "the hint names the log"
    assert folders() == []


def test_what_an_extra_index_has_wrong_comes_from_the_default_one(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """uv takes a version from the first index that has it, even where its hash is not allowed."""
    names = ("tiny", "torch", "alone")
    lock = sources.lock(*(sources.wheel(name, "1.0") for name in names))
    for index, listed in {"default": ("tiny", "torch"), "extra": ("tiny", "alone")}.items():
        for name in listed:
            page = tmp_path / index / name / "index.html"
            page.parent.mkdir(parents=True)
            wheel = sources.folder / f"{name}-1.0-py3-none-any.whl"
            if (index, name) == ("extra", "tiny"):
                (tmp_path / "other").mkdir()
                wheel = sources._wheel(tmp_path / "other", "tiny", "1.0", {"tiny/more.py": ""})
            page.write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "default").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "extra").as_uri())
    environment = make(lock, CPU)
    assert run(environment.bin, "alone") == "alone 1.0", "the extra index counts for the others"
    assert list(environment.prefix.glob("lib/python*/site-packages/tiny/*.py")) == [
        next(environment.prefix.glob("lib/python*/site-packages/tiny/__init__.py"))
    ]

    (tmp_path / "default/tiny/index.html").write_text(
        (tmp_path / "extra/tiny/index.html").read_text()
    )
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty-cache"))
    with pytest.raises(BackendEnvironmentError, match="another file than the one the lock names"):
        make(lock, CPU, reinstall=True)
    assert folders() == []


def test_an_environment_without_the_backend_is_refused(sources: Sources) -> None:
    lock = sources.lock(sources.wheel("other", "1.0"))
    with pytest.raises(BackendEnvironmentError, match="is not in the environment"):
        make(lock, CPU)
    assert folders() == []


def test_a_full_disk_is_noticed_before_anything_is_done(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "SPACE", {"cpu": 10**18})
    with pytest.raises(BackendEnvironmentError, match="needs 1000000000 GB"):
        make(sources.lock(sources.wheel("tiny", "1.0")), CPU)
    assert folders() == []


def test_a_place_that_cannot_be_written(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources.folder / "file").touch()
    monkeypatch.setenv("FT_HOME", str(sources.folder / "file"))
    with pytest.raises(BackendEnvironmentError, match="cannot work in") as caught:
        make(sources.lock(sources.wheel("tiny", "1.0")), CPU)
    assert "FT_HOME" in caught.value.hint


INSTALL = """
import signal
import sys
from pathlib import Path
from orchestrator.environments import locks, torch_build
locks.RELEASES = {"tiny": "1.0"}
signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored where tests start
locks.FOLDER = Path(sys.argv[1])
locks.PYTHONS = {"cpu": (f"{sys.version_info.major}.{sys.version_info.minor}",)}
torch_build.nvidia_driver = lambda: None
torch_build.has_cpu_torch = lambda lock, environ: True
from orchestrator.environments.install import install
print(install("tiny").prefix)
"""


@contextlib.contextmanager
def installing(sources: Sources) -> Iterator["subprocess.Popen[str]"]:
    """Another process that installs `tiny`."""
    with subprocess.Popen(
        [sys.executable, "-c", INSTALL, str(sources.locks)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        try:
            yield process
        finally:
            sources.hold.unlink(missing_ok=True)
            process.kill()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def uv_at_work(folder: str) -> bool:
    """Whether an uv works on an environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (entry / "cmdline").read_bytes().split(b"\0")
            named = any(folder.encode() in argument for argument in arguments)
            if named and program.endswith(b"/uv"):
                return True
    return False


@pytest.fixture
def slow_tiny(sources: Sources) -> locks.Lock:
    """The lock of `tiny` with the package whose build is held up."""
    sources.hold.touch()
    return sources.lock(
        sources.wheel("tiny", "1.0"), sources.wheel("torch", "2.13.0+cpu"), sources.slow()
    )


def test_a_killed_install_is_never_taken_for_a_finished_one(
    sources: Sources, slow_tiny: locks.Lock
) -> None:
    with installing(sources) as process:
        wait_for((sources.folder / "building").exists)
        assert folders() == [f"tiny-1.0-cpu-{slow_tiny.digest}"]
        assert uv_at_work(slow_tiny.digest)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: not uv_at_work(slow_tiny.digest), seconds=10)
        assert folders() == [f"tiny-1.0-cpu-{slow_tiny.digest}"], "nobody could clear up"
        assert registry.installed(home.environments_folder() / folders()[0]) is None
        with pytest.raises(EnvironmentMissing):
            find("tiny")
    leftover = home.environments_folder() / "tiny-1.0-cpu-000000000000"
    leftover.mkdir()
    somebodys = home.environments_folder() / "notes"
    somebodys.mkdir()
    environment = ensure("tiny", install=True)
    assert run(environment.bin, "tiny") == "tiny 1.0"
    assert folders() == ["notes", environment.prefix.name], "leftovers are cleared away"


def test_ctrl_c_clears_up(sources: Sources, slow_tiny: locks.Lock) -> None:
    with installing(sources) as process:
        wait_for((sources.folder / "building").exists)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        assert process.returncode != 0
        assert not uv_at_work(slow_tiny.digest)
        assert folders() == []


def test_two_at_once_make_one(sources: Sources, slow_tiny: locks.Lock) -> None:
    with installing(sources) as first:
        wait_for((sources.folder / "building").exists)
        with installing(sources) as second:
            assert second.stderr
            assert "another ft is at work on tiny-1.0-cpu-" in second.stderr.readline()
            sources.hold.unlink()
            answers = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert answers[0] == answers[1] == f"{find('tiny').prefix}\n"
    log = Path(f"{find('tiny').prefix}.log").read_text()
    assert log.count("Creating virtual environment") == 1


def test_an_interrupted_removal_leaves_no_finished_environment(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make(sources.lock(sources.wheel("tiny", "1.0")), CPU)

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install.delete(environment.prefix)
    assert environment.python.exists()
    assert registry.installed(environment.prefix) is None


def test_a_copied_environment_is_not_one_of_ours(sources: Sources) -> None:
    environment = make(sources.lock(sources.wheel("tiny", "1.0")), CPU)
    moved = environment.prefix.with_name("tiny-moved")
    environment.prefix.rename(moved)
    assert (moved / STAMP).exists()
    assert registry.installed(moved) is None
