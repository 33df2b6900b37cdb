"""Where packages come from, which torch, which environment, and what a process in it sees."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from orchestrator.environments import (
    extensions,
    home,
    indexes,
    interpreters,
    locks,
    registry,
    torch_build,
    uv,
)
from orchestrator.environments.environment import (
    Environment,
    EnvironmentMissing,
    ensure,
    find,
    process_environment,
)
from orchestrator.errors import BackendEnvironmentError, UsageError

ROOT = Path(__file__).parent.parent
FT_HOME = os.environ.get("FT_HOME")


@pytest.fixture
def pip(tmp_path: Path) -> "Pip":
    """An empty machine to configure pip on."""
    return Pip(tmp_path)


class Pip:
    """A home, an environment prefix and variables, as pip would find them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = indexes.Machine(root / "prefix", root)
        self.environ = {"HOME": str(root / "home"), "XDG_CONFIG_DIRS": str(root / "xdg")}

    def write(self, where: str, text: str) -> Path:
        """A configuration file: `xdg/pip`, `etc`, `home/.pip`, `home/.config/pip`, `prefix`."""
        path = self.root / where / "pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def sources(self, **environ: str) -> indexes.Sources:
        """What uv is told."""
        return indexes.sources({**self.environ, **environ}, self.machine)

    def variables(self, **environ: str) -> dict[str, str]:
        """The variables that uv is told."""
        return self.sources(**environ).variables


def test_without_any_configuration_uv_only_learns_pips_way_of_choosing(pip: Pip) -> None:
    assert pip.sources() == indexes.Sources({"UV_INDEX_STRATEGY": "unsafe-best-match"})


def test_all_options_are_handed_on(pip: Pip) -> None:
    wheels = pip.root / "wheels"
    wheels.mkdir()
    bundle = pip.root / "bundle.pem"
    bundle.write_text("")
    pip.write(
        "home/.config/pip",
        f"""
        [global]
        index-url = https://me:secret@mirror.example/simple
        extra-index-url = https://one.example/simple
            https://two.example/simple
        find-links = {wheels} https://files.example/page
        trusted-host = mirror.example one.example:8080
        timeout = 61.7
        retries = 4
        cert = {bundle}
        client-cert = /keys/mine.pem
        proxy = proxy.example:3128
        keyring-provider = subprocess
        """.replace("        ", "").replace("\nhttps", "\n  https"),
    )
    assert pip.variables() == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://me:secret@mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": f"{wheels},https://files.example/page",
        "UV_INSECURE_HOST": "mirror.example one.example:8080",
        "UV_HTTP_TIMEOUT": "62",
        "UV_HTTP_RETRIES": "4",
        "UV_KEYRING_PROVIDER": "subprocess",
        "SSL_CERT_FILE": str(bundle),
        "SSL_CLIENT_CERT": "/keys/mine.pem",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
    }


@pytest.mark.parametrize(
    ("files", "environ", "index"),
    [
        (["xdg/pip"], {}, "xdg/pip"),
        (["xdg/pip", "etc"], {}, "etc"),
        (["etc", "home/.pip"], {}, "home/.pip"),
        (["etc", "home/.pip", "home/.config/pip"], {}, "home/.config/pip"),
        (["home/.config/pip", "prefix"], {}, "prefix"),
        (["prefix", "mine"], {"PIP_CONFIG_FILE": "mine"}, "mine"),
        (["home/.config/pip", "other"], {"PIP_CONFIG_FILE": "other"}, "other"),
        (["prefix"], {"PIP_INDEX_URL": "https://variable.example"}, "variable"),
        (["etc"], {"PIP_INDEX_URL": ""}, "etc"),
        (["etc", "prefix"], {"PIP_CONFIG_FILE": os.devnull}, None),
        (["etc", "elsewhere/pip"], {"XDG_CONFIG_HOME": "elsewhere"}, "elsewhere/pip"),
    ],
)
def test_pips_order_of_files_and_variables(
    pip: Pip, files: list[str], environ: dict[str, str], index: str | None
) -> None:
    for where in files:
        pip.write(where, f"[global]\nindex-url = https://{where.replace('/', '-')}.example\n")
    if environ.get("PIP_CONFIG_FILE", os.devnull) != os.devnull:
        environ = {"PIP_CONFIG_FILE": str(pip.root / environ["PIP_CONFIG_FILE"] / "pip.conf")}
    if "XDG_CONFIG_HOME" in environ:
        environ = {"XDG_CONFIG_HOME": str(pip.root / "elsewhere")}
    expected = index and f"https://{index.replace('/', '-')}.example"
    assert pip.variables(**environ).get("UV_DEFAULT_INDEX") == expected


def test_a_pip_config_file_replaces_the_users_files_only(pip: Pip) -> None:
    pip.write("etc", "[global]\nretries = 1\n")
    pip.write("home/.config/pip", "[global]\ntimeout = 1\n")
    mine = pip.write("mine", "[global]\nindex-url = https://mine.example\n")
    variables = pip.variables(PIP_CONFIG_FILE=str(mine))
    assert variables["UV_HTTP_RETRIES"] == "1"
    assert "UV_HTTP_TIMEOUT" not in variables


def test_a_weak_files_install_section_beats_a_strong_files_global(pip: Pip) -> None:
    pip.write("etc", "[install]\nindex_url = https://install.example\n")
    pip.write("prefix", "[global]\nindex-url = https://global.example\n")
    assert pip.variables()["UV_DEFAULT_INDEX"] == "https://install.example"


def test_the_old_name_of_an_option_and_other_commands_sections(pip: Pip) -> None:
    pip.write("etc", "[global]\ntimeout = 5\n[download]\nindex-url = https://no.example\n")
    variables = pip.variables(PIP_DEFAULT_TIMEOUT="180")
    assert variables["UV_HTTP_TIMEOUT"] == "180"
    assert "UV_DEFAULT_INDEX" not in variables


@pytest.mark.parametrize(
    ("option", "own"),
    [
        ("index-url = https://pip.example", {"UV_DEFAULT_INDEX": "https://uv.example"}),
        ("index-url = https://pip.example", {"UV_INDEX_URL": "https://uv.example"}),
        ("no-index = true", {"UV_DEFAULT_INDEX": "https://uv.example"}),
        ("extra-index-url = https://pip.example", {"UV_INDEX": "https://uv.example"}),
        ("extra-index-url = https://pip.example", {"UV_EXTRA_INDEX_URL": "https://uv.example"}),
        ("find-links = /", {"UV_FIND_LINKS": "/uv"}),
        ("timeout = 3", {"UV_HTTP_TIMEOUT": "4"}),
        ("cert = /etc/hostname", {"SSL_CERT_FILE": "/uv.pem"}),
        ("proxy = pip.example", {"https_proxy": "http://uv.example", "HTTP_PROXY": "http://u"}),
    ],
)
def test_what_the_user_told_uv_wins(pip: Pip, option: str, own: dict[str, str]) -> None:
    pip.write("prefix", f"[global]\n{option}\n")
    assert pip.sources(**own) == indexes.Sources({"UV_INDEX_STRATEGY": "unsafe-best-match"})


def test_no_index_is_a_flag_and_switches_the_indexes_off(pip: Pip) -> None:
    wheels = pip.root / "wheels"
    wheels.mkdir()
    found = pip.sources(
        PIP_NO_INDEX="1",
        PIP_INDEX_URL="https://a.example",
        PIP_EXTRA_INDEX_URL="https://b.example",
        PIP_FIND_LINKS=str(wheels),
    )
    assert found.flags == ("--no-index",)
    assert found.variables == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(wheels),
    }
    assert pip.sources(PIP_NO_INDEX="false").flags == ()


def test_a_missing_folder_of_wheels_is_left_out_and_noted(pip: Pip) -> None:
    wheels = pip.root / "home/my,wheels"
    wheels.mkdir(parents=True)
    found = pip.sources(PIP_FIND_LINKS=f"/nowhere file:///nowhere2 {wheels} file://{wheels}")
    assert found.variables["UV_FIND_LINKS"] == ",".join([f"file://{pip.root}/home/my%2Cwheels"] * 2)
    assert found.ignored == (
        "find-links /nowhere: no such folder",
        "find-links file:///nowhere2: no such folder",
    )


def test_a_broken_file_is_noted_and_the_others_still_count(pip: Pip) -> None:
    broken = pip.write("etc", "index-url = https://no-section.example\n")
    pip.write("prefix", "[global]\ntimeout = 7\n")
    found = pip.sources()
    assert found.variables["UV_HTTP_TIMEOUT"] == "7"
    assert found.ignored == (f"{broken}: cannot be read",)


def test_credentials_are_replaced_wherever_text_is_shown() -> None:
    line = "failed: https://me:s3cret@mirror.example/simple and http://token@x/y, user@host"
    assert indexes.redacted(line) == (
        "failed: https://***@mirror.example/simple and http://***@x/y, user@host"
    )


def test_the_makefile_gets_shell_commands_from_the_standard_library_alone(pip: Pip) -> None:
    environ = {
        "PIP_CONFIG_FILE": os.devnull,
        **pip.environ,
        "PIP_INDEX_URL": "https://a:'b$c@mirror.example",
        "PIP_NO_INDEX": "0",
    }
    argv = [sys.executable, "-S", "-m", "orchestrator.environments.indexes"]
    done = subprocess.run(
        [*argv, "--export"], env=environ, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"export UV_DEFAULT_INDEX={shlex.quote(environ['PIP_INDEX_URL'])}\n" in done.stdout
    assert done.stdout.endswith("export FT_UV_FLAGS=''\n")
    shown = subprocess.run(argv, env=environ, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "$c" not in shown.stdout
    assert "***@mirror.example" in shown.stdout


@pytest.mark.parametrize(
    ("driver", "has_cpu", "name", "lock", "replaced"),
    [
        (None, True, "cpu", "cpu", False),
        (None, False, "cuda", "cuda", False),
        (590, True, "cuda", "cuda", False),
        (0, True, "cuda", "cuda", False),
        (535, True, "cu126", "cuda", True),
    ],
)
def test_which_torch_auto_is(
    monkeypatch: pytest.MonkeyPatch,
    driver: int | None,
    has_cpu: bool,
    name: str,
    lock: str,
    replaced: bool,
) -> None:
    monkeypatch.setattr(torch_build, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(torch_build, "has_cpu_torch", lambda lock, environ: has_cpu)
    build = torch_build.choose("auto", "axolotl")
    assert (build.name, build.lock, build.replaced) == (name, lock, replaced)
    assert build.reason


def test_which_torch_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "has_cpu_torch", lambda lock, environ: False)
    assert torch_build.choose("cpu", "axolotl").backend == "cpu"
    assert not torch_build.choose("cpu", "axolotl").replaced
    assert torch_build.choose("cuda", "axolotl").backend == ""
    assert torch_build.choose("rocm7.1", "llamafactory").replaced
    with pytest.raises(UsageError, match="no build of torch called 'gpu'"):
        torch_build.choose("gpu", "axolotl")


def test_the_driver_is_read_from_the_kernel(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan\n")
    assert torch_build.nvidia_driver(version) == 570
    version.write_text("NVRM version: something else\n")
    assert torch_build.nvidia_driver(version) == 0


@pytest.mark.parametrize("backend", locks.RELEASES)
@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_the_shipped_locks_are_complete_and_name_no_source(
    backend: str, build: locks.Build
) -> None:
    lock = locks.load(backend, build)
    text = "".join(lock.blocks.values())
    assert lock.version(backend) == locks.RELEASES[backend]
    assert "://" not in text
    assert all("--hash=sha256:" in block for block in lock.blocks.values())
    exact = "torch==2.13.0+cpu " if build == "cpu" else "torch==="
    assert lock.blocks["torch"].startswith(exact)
    assert any(name.startswith("nvidia-cudnn") for name in lock.blocks) == (build == "cuda")
    assert {"deepspeed", "bitsandbytes", "wandb", "tensorboard"} <= set(lock.blocks)
    assert f"{backend}=={lock.release}" in (ROOT / "tools/lock.sh").read_text()


# A wheel of multiprocess is for one Python, whatever its tag says. Those of the others that a lock
# must not allow have other hashes.
SOURCE = {
    "0.70.19": "952021e0e6c55a4a9fe4cd787895b86e239a40e76802a789d6305398d3975897",
    "0.70.16": "161af703d4652a0e1410be6abccecde4a7ddffd19341be0a7011b94aeb171ac1",
}
PYPY_311 = "1c3dce098845a0db43b32a0b76a228ca059a668071cfeaa0f40c36c0b1585d45"
WHEELS = {
    ("0.70.19", "3.11"): "928851ae7973aea4ce0eaf330bbdafb2e01398a91518d5c8818802845564f45c",
    ("0.70.19", "3.12"): "3a56c0e85dd5025161bac5ce138dcac1e49174c7d8e74596537e729fd5c53c28",
    ("0.70.16", "3.11"): "af4cabb0dac72abfb1e794fa7855c325fd2b55a10a44628a3c1ad3311c04127a",
    ("0.70.16", "3.12"): "fc0544c531920dde3b00c29863377f87e1632601092ea2daca74e4beb40faa2e",
}


@pytest.mark.parametrize("backend", locks.RELEASES)
@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_the_locks_allow_no_wheel_of_another_python(backend: str, build: locks.Build) -> None:
    lock = locks.load(backend, build)
    version = lock.version("multiprocess")
    parts = re.split(r"^multiprocess==", lock.blocks["multiprocess"], flags=re.MULTILINE)[1:]
    assert len(parts) == len(lock.pythons), "a line for each Python; run `make lock`"
    for python, part in zip(lock.pythons, parts, strict=True):
        assert (f"python_version == '{python}'" in part) == (len(parts) > 1)
        allowed = set(re.findall(r"sha256:(\w+)", part)) - {PYPY_311}
        assert allowed == {SOURCE[version], WHEELS[version, python]}


def test_the_lock_script_takes_wheels_of_other_pythons_out(tmp_path: Path) -> None:
    lock, pylock = tmp_path / "lock.txt", tmp_path / "pylock.toml"
    before = "newer==1 \\\n    --hash=sha256:aa\n"
    after = "six==1 \\\n    --hash=sha256:ab\n    # via x\n"
    lock.write_text(
        f"{before}pool==2 ; a == 'b' or c == 'd' \\\n    --hash=sha256:10 \\\n"
        "    --hash=sha256:11 \\\n    --hash=sha256:12 \\\n    --hash=sha256:05\n"
        f"    # via y\n{after}"
    )
    files = {
        "newer": {"newer-1-py37-none-any.whl": "aa"},
        "pool": {
            "pool-2-py310-none-any.whl": "10",
            "pool-2-py311-none-any.whl": "11",
            "pool-2-py312-none-any.whl": "12",
            "pool-2-pp311-pypy311_pp73-any.whl": "pp",
        },
        "six": {"six-1-py2.py3-none-any.whl": "ab"},
    }
    text = ""
    for name, wheels in files.items():
        text += f'[[packages]]\nname = "{name}"\nversion = "{2 if name == "pool" else 1}"\n'
        text += f'sdist = {{ url = "x:/{name}.tar.gz", hashes = {{ sha256 = "05" }} }}\nwheels = ['
        for file, digest in wheels.items():
            text += f'{{ url = "x:/{file}", hashes = {{ sha256 = "{digest}" }} }},'
        text += "]\n"
    pylock.write_text(text)

    def rewrite(*pythons: str) -> str:
        argv = [
            sys.executable,
            str(ROOT / "tools/lock_wheels.py"),
            str(lock),
            str(pylock),
            *pythons,
        ]
        subprocess.run(argv, check=True, capture_output=True)
        return lock.read_text()

    both = " \\\n    --hash=sha256:05 \\\n    --hash=sha256:{} \\\n    --hash=sha256:pp\n"
    original = lock.read_text()
    marker = "(a == 'b' or c == 'd')"
    assert rewrite("3.11", "3.12") == (
        f"{before}pool==2 ; python_version == '3.11' and {marker}{both.format('11')}"
        f"pool==2 ; python_version == '3.12' and {marker}{both.format('12')}    # via y\n{after}"
    )
    lock.write_text(original)
    one = f"{before}pool==2 ; a == 'b' or c == 'd'{both.format('11')}    # via y\n{after}"
    assert rewrite("3.11") == one
    assert rewrite("3.11") == one, "nothing is left to do"


def test_our_own_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"], "hatchling"]
    locked = (ROOT / "requirements-dev.txt").read_text()
    missing = [
        requirement
        for requirement in asked
        if f"\n{re.split('[<>=~! ;[]', requirement)[0].lower().replace('_', '-')}==" not in locked
    ]
    assert missing == [], "run `make lock`"
    assert "://" not in locked


def test_a_lock_is_its_content_and_not_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    lock = "# one\na==1 \\\n    --hash=sha256:00\n    # via b\ntorch==2.13.0+cpu \\\n    --hash=x\n"
    path.write_text(lock)
    first = locks.Lock("a", "1", "cpu", path)
    assert first.version("a") == "1"
    assert first.without_torch() == "a==1 \\\n    --hash=sha256:00\n"
    assert first.torch_requirements() == ["torch==2.13.0"]
    path.write_text(lock.replace("# one", "# two").replace("    # via b\n", ""))
    assert locks.Lock("a", "1", "cpu", path).digest == first.digest
    path.write_text(lock.replace("00", "01"))
    assert locks.Lock("a", "1", "cpu", path).digest != first.digest


def test_a_python_is_found_or_the_error_says_how_to_get_one() -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert interpreters.find((own,)) == sys.executable
    with pytest.raises(BackendEnvironmentError, match=r"needs Python 3\.1 or 3\.2") as caught:
        interpreters.find(("3.1", "3.2"))
    assert "python install 3.1" in caught.value.hint


def test_uv_gets_no_setting_that_changes_what_is_installed(pip: Pip) -> None:
    environ = {
        **pip.environ,
        "UV_CACHE_DIR": "/cache",
        "UV_INDEX_MINE_PASSWORD": "p",
        "UV_CONSTRAINT": "/constraints",
        "UV_NO_VERIFY_HASHES": "1",
        "VIRTUAL_ENV": "/venv",
        "PYTHONPATH": "/path",
        "HF_TOKEN": "t",
    }
    told = uv.environment(pip.sources(), environ)
    assert told["UV_CACHE_DIR"] == "/cache"
    assert told["UV_INDEX_MINE_PASSWORD"] == "p"
    assert told["DS_BUILD_OPS"] == "0"
    hidden = {"UV_CONSTRAINT", "UV_NO_VERIFY_HASHES", "VIRTUAL_ENV", "PYTHONPATH", "HF_TOKEN"}
    assert not hidden & told.keys()


def test_uvs_output_becomes_a_status_line() -> None:
    seen = uv.Progress()
    assert seen.line() == "resolving"
    seen.feed("Resolved 243 packages in 3.26s\nDownloading triton (272.5MiB)\nDownloading six (1")
    assert seen.packages == 243
    assert seen.line() == "triton (272.5MiB)"
    seen.feed(".0MiB)\n   Building deepspeed==0.18.6\n")
    assert seen.line() == "deepspeed (building) and 2 more"
    seen.feed(" Downloaded triton\n      Built deepspeed==0.18.6\n")
    assert (len(seen.done), len(seen.announced), seen.line()) == (2, 3, "six (1.0MiB)")
    seen.feed("Prepared 241 packages in 21.80s\nInstalled 243 packages in 1.18s\n")
    assert (seen.finished, seen.line()) == (True, "")


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("failed to write\n cause: No space left on device (os error 28)", "disk is full"),
        ("error: Hash mismatch for `six==1.17.0`", "another file than the one the lock names"),
        ("cause: invalid peer certificate: UnknownIssuer", "certificate is not trusted"),
        ("HTTP status client error (401 Unauthorized)", "refused access"),
        ("error sending request\n cause: dns error", "cannot be reached"),
        ("Because torch==2.13.0 has no wheels with a matching Python", "no package source"),
        ("error: Failed to build `deepspeed==0.18.6`", "could not be built"),
        ("boom", "uv gave up"),
    ],
)
def test_the_cause_of_a_failure_is_named(output: str, meaning: str) -> None:
    assert meaning in uv.cause(output)[0]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A virtual environment of the user's that claims to have axolotl 0.18.0."""
    place = tmp_path / "mine"
    venv.create(place, symlinks=True)
    packages = next(place.glob("lib/python*/site-packages"))
    information = packages / "axolotl-0.18.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: axolotl\nVersion: 0.18.0\n")
    return place


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FT_HOME", str(tmp_path / "ft-home"))
    for name in locks.RELEASES:
        monkeypatch.delenv(registry.variable(name), raising=False)


def test_nothing_is_in_use_at_first() -> None:
    with pytest.raises(EnvironmentMissing) as caught:
        find("axolotl")
    assert caught.value.hint == "ft backend install axolotl"
    with pytest.raises(EnvironmentMissing):
        ensure("axolotl", install=False)
    with pytest.raises(UsageError):
        find("trl")
    assert not home.home().exists()


def test_a_prefix_of_the_users(prefix: Path) -> None:
    home.choose("axolotl", prefix=str(prefix), installed="something")
    found = find("axolotl")
    assert (found.prefix, found.origin, found.release) == (prefix, "prefix", "0.18.0")
    home.choose("axolotl", prefix=None)
    assert home.choices("axolotl") == {"installed": "something"}
    with pytest.raises(EnvironmentMissing):
        find("axolotl")


def test_the_variable_outranks_what_is_recorded(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.choose("axolotl", prefix="/nowhere")
    with pytest.raises(BackendEnvironmentError, match="chosen by ft backend use") as caught:
        ensure("axolotl", install=True)
    assert "--default" in caught.value.hint
    monkeypatch.setenv("FT_AXOLOTL_PREFIX", str(prefix))
    assert find("axolotl").prefix == prefix
    monkeypatch.setenv("FT_AXOLOTL_PREFIX", "/nowhere/else")
    with pytest.raises(BackendEnvironmentError, match="FT_AXOLOTL_PREFIX"):
        find("axolotl")


def test_a_prefix_must_have_the_backend_and_a_python_that_runs(prefix: Path) -> None:
    with pytest.raises(BackendEnvironmentError, match="llamafactory is not installed"):
        registry.from_prefix("llamafactory", prefix)
    (prefix / "bin/python").unlink()
    (prefix / "bin/python").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    (prefix / "bin/python").chmod(0o755)
    with pytest.raises(BackendEnvironmentError, match="does not run") as caught:
        registry.from_prefix("axolotl", prefix)
    assert "broken" in caught.value.detail


def test_a_broken_record_is_an_error_and_not_forgotten() -> None:
    home.home().mkdir()
    (home.home() / "config.json").write_text("{")
    with pytest.raises(BackendEnvironmentError, match=r"cannot read .*config\.json"):
        find("axolotl")


def test_what_a_process_in_an_environment_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "/of/the/shell")
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(torch_build, "gpu_visible", lambda: True)
    environment = Environment("axolotl", tmp_path, tmp_path / "bin/python", "prefix", "0.19.0")

    seen = process_environment(environment, offline=False, extra={"OMP_NUM_THREADS": "1"})
    assert seen["PATH"].split(":")[0] == str(tmp_path / "bin")
    assert seen["VIRTUAL_ENV"] == str(tmp_path)
    assert seen["WANDB_MODE"] == "disabled"
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["AXOLOTL_DO_NOT_TRACK"] == seen["PYTHONNOUSERSITE"] == "1"
    gone = {"PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX", "PIP_INDEX_URL", "DS_ACCELERATOR"}
    offline = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"}
    assert not (gone | offline) & seen.keys()

    (tmp_path / "conda-meta").mkdir()
    monkeypatch.setattr(torch_build, "gpu_visible", lambda: False)
    seen = process_environment(environment, offline=True)
    assert {seen[name] for name in offline} == {"1"}
    assert seen["CONDA_PREFIX"] == str(tmp_path)
    assert "VIRTUAL_ENV" not in seen
    assert seen["DS_ACCELERATOR"] == "cpu"


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "nvidia_driver", lambda: 590)
    assert torch_build.gpu_visible({})
    assert torch_build.gpu_visible({"CUDA_VISIBLE_DEVICES": "0,1"})
    assert not torch_build.gpu_visible({"CUDA_VISIBLE_DEVICES": ""})
    assert not torch_build.gpu_visible({"CUDA_VISIBLE_DEVICES": "-1"})


def test_the_command_line_chooses_and_forgets_a_prefix(
    prefix: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli.main import run

    assert run(["backend", "use", "axolotl"]) == 2
    assert run(["backend", "use", "axolotl", "--prefix", str(prefix / "bin")]) == 4
    assert run(["backend", "use", "axolotl", "--prefix", str(prefix)]) == 0
    assert "ft is made for axolotl 0.19.0" in capfd.readouterr().err
    assert run(["backend", "path", "axolotl"]) == 0
    assert capfd.readouterr().out == f"{prefix}\n"
    assert run(["backend", "list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["backends"]
    assert [(row["backend"], row["state"], row["origin"]) for row in rows] == [
        ("axolotl", "in use", "prefix"),
        ("llamafactory", "there is no environment for llamafactory yet", ""),
    ]
    assert run(["backend", "use", "axolotl", "--default"]) == 0
    assert run(["backend", "path", "axolotl"]) == 4
    assert run(["backend", "remove", "axolotl"]) == 4


def test_the_doctor_finds_what_is_wrong(prefix: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from orchestrator.cli.main import run

    assert run(["backend", "doctor", "axolotl", "--json"]) == 4
    report = json.loads(capfd.readouterr().out)
    assert report["ok"] is False
    assert report["backends"]["axolotl"] == [
        {
            "check": "environment",
            "level": "fail",
            "detail": "there is no environment for axolotl yet",
            "remedy": "ft backend install axolotl",
        }
    ]
    assert run(["backend", "use", "axolotl", "--prefix", str(prefix)]) == 0
    capfd.readouterr()
    assert run(["backend", "doctor", "axolotl", "--json"]) == 4
    checks = {
        check["check"]: check for check in json.loads(capfd.readouterr().out)["backends"]["axolotl"]
    }
    assert checks["environment"]["level"] == "ok"
    assert checks["release"]["level"] == "warn"
    assert "0.19.0" in checks["release"]["detail"]
    assert "fail" in {check["level"] for check in checks.values()}, "there is no axolotl to import"
    assert checks["process pools"]["level"] == "fail"
    assert "No module named 'multiprocess'" in checks["process pools"]["detail"]
    assert run(["backend", "doctor", "trl"]) == 2


def test_the_doctor_starts_processes(prefix: Path) -> None:
    from orchestrator.environments.doctor import process_pools

    packages = next(prefix.glob("lib/python*/site-packages"))
    multiprocess = packages / "multiprocess.py"
    multiprocess.write_text("from multiprocessing import get_context\n__version__ = '7'\n")
    environment = Environment("axolotl", prefix, prefix / "bin/python", "ft", "0.19.0")
    check = process_pools(environment)
    assert (check.check, check.level, check.detail) == ("process pools", "ok", "multiprocess 7")
    multiprocess.write_text("def get_context(way):\n    raise TypeError('21 given')\n")
    check = process_pools(environment)
    assert check.level == "fail"
    assert "TypeError: 21 given" in check.detail
    assert check.remedy == "ft backend install axolotl --reinstall"


@pytest.mark.backend
@pytest.mark.parametrize("backend", locks.RELEASES)
def test_the_doctor_is_content_with_what_ft_installed(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.environments.doctor import examine

    if FT_HOME is None:
        monkeypatch.delenv("FT_HOME")
    else:
        monkeypatch.setenv("FT_HOME", FT_HOME)
    assert [check for check in examine(backend) if check.level == "fail"] == []


def test_a_build_that_was_killed_does_not_stop_the_next_training(tmp_path: Path) -> None:
    left = tmp_path / "cpu_adam" / "lock"
    left.parent.mkdir()
    left.touch()
    with extensions.in_use(tmp_path):
        assert not left.exists()
        left.touch()  # now somebody builds
        with extensions.in_use(tmp_path):
            assert left.exists()
    with extensions.in_use(tmp_path):
        assert not left.exists()


def test_what_is_built_for_one_environment_is_not_built_again_for_another(tmp_path: Path) -> None:
    places = set()
    for name in ("one", "two"):
        prefix = tmp_path / name
        made = Environment("axolotl", prefix, prefix / "bin" / "python", "prefix", "0.19.0")
        places.add(process_environment(made, offline=True)["TORCH_EXTENSIONS_DIR"])
    assert len(places) == 2
