"""Cluster profiles: strict, with places; found by name; their prelude is a safe bash text."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.clusters import prelude
from orchestrator.clusters.load import cluster_names, load_cluster
from orchestrator.clusters.profile import Cluster, seconds
from orchestrator.errors import UsageError
from orchestrator.findings import RecipeError
from tests.helpers import ft

TEXT = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\x85"),
    max_size=40,
).filter(lambda text: "${" not in text)
"""What may stand in a profile. A `${NAME}` means something, and has tests of its own."""

LANTA = {"LANTA_PROJECT": "lt200000", "LANTA_SCRATCH": "/scratch/lt200000-mine"}


def profile(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_profiles_load() -> None:
    assert {"lanta", "slurm-generic"} <= set(cluster_names())
    assert load_cluster("slurm-generic").cluster.partition is None
    lanta = load_cluster("lanta", LANTA).cluster
    assert (lanta.gpus_per_node, lanta.offline, lanta.account) == (4, True, "lt200000")


def test_a_variable_that_is_not_set_is_named_once() -> None:
    with pytest.raises(RecipeError, match=r"2 errors in .*lanta\.yaml") as caught:
        load_cluster("lanta", {})
    assert [finding.code for finding in caught.value.findings] == ["FT108", "FT108"]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("partion: gpu", "FT101", "did you mean 'partition'?"),
        ("one_task: {cpu: 3}", "FT101", "in one_task (did you mean 'cpus'?)"),
        ("nodes: 0", "FT103", "must be at least 1"),
        ("time: 8h", "FT103", "'8h' is not a time like 8:00:00"),
        ("modules: [a b]", "FT103", "modules[0]: 'a b' is not a name as"),
        ("time: '0:00:00'\nrequeue: 0", "FT103", "'0:00:00' is not a time like 8:00:00"),
        ("scratch: $SCRATCH/x", "FT103", "a variable in it is written ${NAME}"),
        ("warn_before: 70000", "FT103", "at most 65535"),
        ("sbatch: [--clusters=other]", "FT103", "--clusters in sbatch"),
        ("sbatch: [--sig=USR2@5]", "FT103", "--signal in sbatch: ft gives this option itself"),
        ("exports: {AWS_SECRET_ACCESS_KEY: x}", "FT103", "exports.AWS_SECRET_ACCESS_KEY: a secret"),
        ("account: '$(rm -rf ~)'", "FT103", "is not a name"),
        ("scratch: here", "FT103", "'here' is not an absolute path"),
        ("memory: 200", "FT102", "text is needed"),
        ("exports: {A-B: x}", "FT103", "is not a variable's name"),
        ("exports: {HF_TOKEN: x}", "FT103", "a secret belongs into your environment"),
        ("exports: {FT_HOME: /x}", "FT103", "`environment` says where"),
        ("sbatch: [--nodes=3]", "FT103", "ft gives this option itself"),
        ("sbatch: [reservation]", "FT103", "is not an option like"),
        ("time: '5:00'\nwarn_before: 600", "FT103", "leaves nothing of time"),
        ("environment: {axolotl: {prefix: /a, conda: b}}", "FT103", "not both"),
        ("- a", "FT105", "no mapping"),
        ("launcher: pbs", "FT103", "'pbs' is not"),
    ],
)
def test_mistakes_have_a_place_and_words(tmp_path: Path, text: str, code: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_cluster(str(profile(tmp_path, text)))
    assert len(caught.value.findings) == 1
    finding = caught.value.findings[0]
    assert finding.code == code
    assert words in finding.message
    assert finding.place is not None
    assert finding.place.line == 1
    assert not finding.message.startswith(":")


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(root=TEXT, value=TEXT, prefix=TEXT)
def test_what_a_profile_says_reaches_the_job_as_it_is(
    tmp_path: Path, root: str, value: str, prefix: str
) -> None:
    """Every legal text, through the script's own shell."""
    scratch = tmp_path / "s" / (root.replace("/", "").strip(".") or "x")
    cluster = Cluster.model_validate({
        "scratch": str(scratch), "exports": {"X": value},
        "environment": {"axolotl": {"prefix": f"/{prefix}"}},
    })  # fmt: skip
    shown = 'printf "%s\\0" "$X" "$FT_AXOLOTL_PREFIX" "$HF_HOME" "$TMPDIR"'
    done = bash("\n".join([*prelude.lines(cluster, "axolotl"), shown]))
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.split("\0")[:-1]
    assert said == [value, f"/{prefix}", f"{scratch}/hf", f"{scratch}/tmp/7"]


def test_names_are_found_in_order_and_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for folder, partition in (("config/ft/clusters", "theirs"), ("clusters", "here")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "mine.yaml").write_text(f"partition: {partition}")
    assert load_cluster("mine").cluster.partition == "here"
    (tmp_path / "clusters" / "mine.yaml").unlink()
    assert load_cluster("mine").cluster.partition == "theirs"
    with pytest.raises(UsageError, match="did you mean 'lanta'"):
        load_cluster("lantta")
    with pytest.raises(UsageError, match="there is no cluster profile"):
        load_cluster("no/such.yaml")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("30:00", 1800), ("8:00:00", 28800), ("1-12:00:00", 129600), ("2-00:00", 172800)],
)
def test_time_limits(limit: str, expected: int) -> None:
    assert seconds(limit) == expected


def bash(text: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a prelude as a batch script would."""
    env = {"PATH": os.environ["PATH"], "HOME": "/", "SLURM_JOB_ID": "7", **environ}
    return subprocess.run(
        ["bash", "-c", text], env=env, capture_output=True, text=True, check=False
    )


def test_exports_expand_variables_and_nothing_else(tmp_path: Path) -> None:
    hostile = "a $(touch x) `touch x` \"q\" 'p' \\ ${HOME}:${UNSET_X}$HOME"
    cluster = Cluster(exports={"A": hostile}, scratch=str(tmp_path / "s p"), offline=True)
    lines = prelude.lines(cluster, "axolotl", {"GIVEN": "x 'y'"})
    shown = 'printf "%s\\n" "$A" "$TMPDIR" "$HF_HOME" "$HF_DATASETS_OFFLINE" "$GIVEN"'
    done = bash("\n".join([*lines, shown]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a $(touch x) `touch x` \"q\" 'p' \\ /$HOME",
        f"{tmp_path}/s p/tmp/7",
        f"{tmp_path}/s p/hf",
        "1",
        "x 'y'",
    ]
    assert (tmp_path / "s p" / "tmp" / "7").is_dir()


def test_a_temporary_folder_of_the_site_on_the_node_is_kept(tmp_path: Path) -> None:
    text = "\n".join([*prelude.lines(Cluster(scratch=str(tmp_path)), "axolotl"), 'echo "$TMPDIR"'])
    assert bash(text, TMPDIR="/tmp").stdout == f"{tmp_path}/tmp/7\n"
    node = tmp_path / "local"
    assert bash(text, TMPDIR=str(node)).stdout == f"{node}\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/x:${UNSET_X}", "/x"),
        ("${UNSET_X}:/x", "/x"),
        ("/x:${HOME}", "/x:/h"),
        ("${HOME}:/x", "/h:/x"),
        ("/a:${UNSET_X}:/b", "/a:/b"),
        ("/a:${HOME}:/b", "/a:/h:/b"),
        ("${HOME}:${UNSET_X}:${HOME}", "/h:/h"),
        ("a${UNSET_X}b${HOME}", "ab/h"),
    ],
)
def test_lists_get_no_empty_entries(value: str, expected: str) -> None:
    done = bash(f'X={prelude.expanding(value)}; printf %s "$X"', HOME="/h")
    assert done.stdout == expected


def test_modules_that_cannot_be_loaded_stop_the_script(tmp_path: Path) -> None:
    init = tmp_path / "init"
    init.write_text('module() { [ "$2" != Nope/1 ] || return 1; }')
    known = Cluster(modules=("Mamba/23.11",), module_init=str(init))
    assert bash("\n".join(prelude.lines(known, "axolotl"))).returncode == 0
    missing = Cluster(modules=("Mamba/23.11", "Nope/1"), module_init=str(init))
    done = bash("\n".join(prelude.lines(missing, "axolotl")))
    assert done.returncode == prelude.Stop.MODULE
    assert "ft: the module Nope/1 cannot be loaded" in done.stderr
    nowhere = Cluster(modules=("Mamba/23.11",), module_init=str(tmp_path / "no"))
    done = bash("\n".join(prelude.lines(nowhere, "axolotl")))
    assert done.returncode == prelude.Stop.MODULE_COMMAND
    assert "set module_init" in done.stderr


def test_conda_environments_are_activated(tmp_path: Path) -> None:
    conda = tmp_path / "conda"
    conda.write_text(
        "#!/bin/bash\necho 'conda() { [ \"$2\" = good ] && export CONDA_PREFIX=/envs/good; }'\n"
    )
    conda.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for name, code in (("good", 0), ("bad", prelude.Stop.ENVIRONMENT)):
        cluster = Cluster.model_validate({"environment": {"axolotl": {"conda": name}}})
        text = "\n".join([*prelude.lines(cluster, "axolotl"), 'echo "$FT_AXOLOTL_PREFIX"'])
        done = bash(text, PATH=path)
        assert done.returncode == code
    assert "bad cannot be activated" in done.stderr


def test_profiles_that_are_odd_break_no_list(tmp_path: Path) -> None:
    folder = tmp_path / "clusters"
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "gone.yaml").symlink_to("nowhere")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe")
    (folder / "odd.yaml").write_text('description: "[/x] of the [lab]"')
    done = ft("cluster", "list", cwd=tmp_path)
    assert (done.code, "[/x] of the [lab]" in done.out) == (0, True), done.err
    for name, words in (("folder", "a folder, not a file"), ("bytes", "not UTF-8")):
        done = ft("cluster", "show", name, cwd=tmp_path)
        assert (done.code, words in done.err) == (2, True), done.err


def test_commands(tmp_path: Path) -> None:
    done = ft("cluster", "list", "--json", cwd=tmp_path)
    assert {"lanta", "slurm-generic"} <= {entry["name"] for entry in done.json}
    assert ft("cluster", "show", "lanta").out.startswith("# LANTA")
    shown = ft("cluster", "show", "lanta", "--resolved", "--json", cwd=tmp_path, **LANTA)
    assert shown.json["scratch"] == "/scratch/lt200000-mine"
    made = ft("cluster", "new", "mine", cwd=tmp_path)
    assert made.code == 0, made.err
    again = ft("cluster", "new", "mine", cwd=tmp_path)
    assert (again.code, "is there already" in again.err) == (2, True)
    assert ft("cluster", "new", "../x", cwd=tmp_path).code == 2
    empty = tmp_path / "bin"
    empty.mkdir()
    checked = ft("cluster", "check", "mine", "--json", cwd=tmp_path, PATH=str(empty))
    assert checked.code == 3
    assert checked.json[0]["detail"].startswith("not found: sbatch")
