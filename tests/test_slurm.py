"""Batch scripts and Slurm's answers, without a Slurm."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.base import Target
from orchestrator.clusters import check
from orchestrator.clusters.load import load_cluster
from orchestrator.clusters.profile import Cluster
from orchestrator.clusters.site import Site
from orchestrator.errors import JobError, UsageError
from orchestrator.files import write_atomic, write_json
from orchestrator.findings import RecipeError
from orchestrator.launchers import queue, rendezvous, slurm
from orchestrator.plan import Context, Plan, build
from orchestrator.recipe.load import Loaded, load
from orchestrator.recipe.sources import find_recipe
from orchestrator.runs import following, jobs
from orchestrator.runs.following import follow_logs
from orchestrator.runs.jobs import end, exit_code, live, none_active, wait_for
from orchestrator.runs.lock import locked
from orchestrator.runs.record import Record, new_layout, open_record
from orchestrator.setup_run import resolve
from tests.helpers import ROOT, ft, loaded

GOLDEN = ROOT / "tests" / "golden" / "slurm"
REWRITE = os.environ.get("FT_GOLDEN") == "write"

HOSTILE = Cluster.model_validate(
    {
        "partition": "gpu,big",
        "account": "lab@site",
        "gpus_per_node": 2,
        "gpu_type": "a100",
        "memory": "400G",
        "time": "1-00:00:00",
        "requeue": 0,
        "one_task": {"partition": "cpu", "qos": "short", "memory": "32G"},
        "modules": ["Mamba/23.11", "CUDA/12.4"],
        "module_init": "/opt/site's modules/init.sh",
        "environment": {"axolotl": {"conda": "my-env"}},
        "exports": {"LD_LIBRARY_PATH": "${CONDA_PREFIX}/lib:${LD_LIBRARY_PATH}", "X": "$(id) `id`"},
        "scratch": "/scratch/my lab",
        "sbatch": ["--reservation=the course", "--exclusive"],
    }
)


def planned(recipe: Loaded, site: Site, root: str) -> Plan:
    facts: dict[str, Any] = {
        "root": root, "python": "/envs/b/bin/python", "probe": "/ft/probe/stage.py",
        "prepared": "/prepared/x", "target": site.target(recipe.recipe),
        **site.facts(recipe.recipe),
    }  # fmt: skip
    sources = tuple(source.path for source in recipe.recipe.data.sources)
    return build(recipe.recipe, Context(sources=sources, **facts))


def case(name: str) -> tuple[Plan, Site, slurm.Submission]:
    """A plan, a site and what the scripts are made of, by the name of its golden folder."""
    given = slurm.Submission("/ft/.venv/bin/python", "/home/me/ft", "8:00:00")
    if name == "lanta-two-nodes":
        environ = {"LANTA_PROJECT": "lt200000", "LANTA_SCRATCH": "/scratch/lt200000-mine"}
        site = Site("lanta", load_cluster("lanta", environ).cluster, nodes=2)
        file = find_recipe("llama3-lora-ds3")
        overrides = site.overrides(load(file).recipe)
        return planned(load(file, overrides=overrides), site, "/runs/r1"), site, given
    if name == "generic":
        site = Site("slurm-generic", load_cluster("slurm-generic").cluster)
        return planned(load(find_recipe("mistral-qlora")), site, "/runs/r1"), site, given
    site = Site("hostile", HOSTILE)
    recipe = loaded(**{"distributed.strategy": "ddp", "distributed.gpus": 2, "output.merge": False,
                       "output.export": False})  # fmt: skip
    given = slurm.Submission("/my ft/bin/python", "/home/me/$ft", "1-00:00:00", {"A": "x 'y'"})
    return planned(recipe, site, '/runs/50% "off" it\'s $HOME'), site, given


UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"

CASES = ("lanta-two-nodes", "generic", "hostile")


@pytest.mark.parametrize("name", CASES)
def test_scripts_are_the_golden_ones(name: str) -> None:
    plan, site, given = case(name)
    files = {f"{job.name}.sh": job.script for job in slurm.chain(plan, site.cluster, given)}
    train = plan.stage("train")
    assert train
    files["train-command.txt"] = "\n".join(train.argv) + "\n"
    folder = GOLDEN / name
    if REWRITE:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == files


@pytest.mark.parametrize("name", CASES)
def test_scripts_pass_shellcheck(name: str) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    scripts = sorted(map(str, (GOLDEN / name).glob("*.sh")))
    done = subprocess.run(
        [program, "--enable=quote-safe-variables", *scripts],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    wrapped = subprocess.run(
        [program, "--shell=bash", "-"], input=slurm.TASK, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert wrapped.returncode == 0, wrapped.stdout


def test_what_a_script_calls_gets_every_argument_as_it_is() -> None:
    """The last line of the hostile script, run with a program that prints its arguments."""
    plan, site, given = case("hostile")
    script = slurm.script(plan, site.cluster, given, "train")
    call = (
        script.splitlines()[-1].removeprefix("exec ").replace("'/my ft/bin/python'", "printf %s\\|")
    )
    done = subprocess.run(["bash", "-c", call], check=True, capture_output=True, text=True)
    assert done.stdout.split("|")[:-1] == [
        "-I", "-m", "orchestrator.cli.main", "job", "/runs/50% \"off\" it's $HOME", "train",
    ]  # fmt: skip


def test_jobs_are_only_made_for_what_is_left() -> None:
    plan, site, given = case("lanta-two-nodes")

    def names(done: tuple[str, ...]) -> list[str]:
        return [job.name for job in slurm.chain(plan, site.cluster, given, done)]

    assert names(()) == ["prepare", "train", "finish"]
    assert names(("fetch", "preprocess", "inspect")) == ["train", "finish"]
    assert names(("preprocess", "inspect", "train", "merge")) == ["finish"]
    plan, site, given = case("hostile")
    assert names(()) == ["prepare", "train"]


def test_jobs_get_no_modules_and_no_variables_of_the_shell() -> None:
    shell = {"HOME": "/me", "PATH": "/bin", "LD_LIBRARY_PATH": "/x", "LOADEDMODULES": "CUDA",
             "CONDA_PREFIX": "/x", "PYTHONPATH": "/x", "WANDB_API_KEY": "k", "LC_ALL": "C",
             "SLURM_CONF": "/s", "SLURM_JOB_ID": "1", "FT_HOME": "/f"}  # fmt: skip
    assert slurm.submit_environment(shell, ["/opt/slurm/bin", "/usr/bin"]) == {
        "HOME": "/me", "WANDB_API_KEY": "k", "LC_ALL": "C", "SLURM_CONF": "/s",
        "PATH": "/opt/slurm/bin:/usr/bin:/usr/local/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "nodes", "code"),
    [
        ({"distributed.strategy": "ddp", "distributed.gpus": 8}, None, "FT242"),
        ({}, 2, "FT214"),
        ({"output.push_to_hub": "me/x"}, None, "FT245"),
        ({"training.save": "never"}, None, "FT246"),
        ({"training.save": "epoch"}, None, "FT246"),
    ],
)
def test_what_the_cluster_says_about_a_recipe(
    changes: dict[str, Any], nodes: int | None, code: str
) -> None:
    cluster = Cluster(gpus_per_node=4, offline=True)
    site = Site("c", cluster, nodes)
    first = loaded(**changes)
    extra = {o.partition("=")[0]: int(o.partition("=")[2]) for o in site.overrides(first.recipe)}
    try:
        found = resolve(loaded(**{**changes, **extra}), site=site).findings
    except RecipeError as error:
        found = error.findings
    assert code in {finding.code for finding in found}


@pytest.mark.parametrize(
    ("save", "limit", "processes", "warned"),
    [
        (1000, "2:00:00", 4, True),  # 1000 steps at 9 s are 2.5 hours
        (1000, "3:00:00", 4, False),
        (100, "2:00:00", 4, False),
        ("2/epoch", "2:00:00", 4, True),  # 4000 steps in 2 epochs
        ("4/epoch", "2:00:00", 4, False),
        ("epoch", "2:00:00", 4, True),
        ("epoch", "24:00:00", 4, False),
        (1000, "2:00:00", 1, False),  # that was another run
    ],
)
def test_checkpoints_are_held_against_the_limit_at_the_pace_of_an_earlier_run(
    tmp_path: Path, save: object, limit: str, processes: int, warned: bool
) -> None:
    facts = {"world_size": 4, "runtime_seconds": 36000.0, "global_step": 4000, "max_steps": 4000}
    write_json(tmp_path / "r1" / "run.json", {
        "recipe": "basic", "backend": "axolotl", "cluster": {"name": "c"},
        "stages": {"train": {"facts": facts}},
    })  # fmt: skip
    site = Site("c", Cluster(gpus_per_node=4, requeue=3), time=limit)
    found = resolve(loaded(**{
        "training.save": save, "training.epochs": 2, "output.directory": str(tmp_path),
        "distributed.strategy": "ddp" if processes > 1 else "none",
        "distributed.gpus": processes if processes > 1 else None,
    }), site=site).findings  # fmt: skip
    assert ("FT246" in {finding.code for finding in found}) == warned


def test_nodes_without_a_cluster_are_an_error() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(loaded(**{"distributed.strategy": "ddp", "distributed.nodes": 2}))
    assert [f.code for f in caught.value.findings if f.level == "error"] == ["FT240"]


def test_a_cluster_decides_what_the_recipe_leaves_open() -> None:
    site = Site("c", Cluster(gpus_per_node=4, nodes=2))
    assert site.overrides(loaded().recipe) == []
    spread = {"distributed.strategy": "ddp"}
    assert site.overrides(loaded(**spread).recipe) == ["distributed.nodes=2", "distributed.gpus=4"]
    own = loaded(**spread, **{"distributed.nodes": 1, "distributed.gpus": 3}).recipe
    assert site.overrides(own) == []
    assert site.target(own) == Target("cuda", True, 3)
    assert Site("c", Cluster(gpus_per_node=0)).target(own) == Target("cpu", False, 3)


def test_ports_differ_by_job_and_are_free() -> None:
    first = rendezvous.port(5)
    with socket.socket() as taken:
        taken.bind(("", first))
        taken.listen()
        second = rendezvous.port(5)
        assert second != first
        assert rendezvous.port(6) != first


def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Recorded answers of Slurm's commands, as programs on PATH."""
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_states_are_asked_of_whoever_still_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "JobId=7 Restarts=2 JobState=PENDING Reason=BeginTime NodeList=(null) ExitCode=0:0"
    answers(tmp_path, monkeypatch, scontrol=f"echo Welcome; echo '{line}'", sacct="exit 1")
    state = queue.look("7")
    assert state is not None
    assert (state.state, state.reason, state.restarts, state.waiting) == (
        "PENDING", "BeginTime", 2, True,
    )  # fmt: skip
    rows = "7|PREEMPTED|0:0|n1\\n7|CANCELLED by 0|0:15|n1\\n"
    answers(tmp_path, monkeypatch, scontrol=UNKNOWN,
            sacct=f'[ "$1" = -c ] && printf "{rows}"')  # fmt: skip
    state = queue.look("7")
    assert state is not None
    assert (state.state, state.exit_code, state.signal, state.ended) == ("CANCELLED", 0, 15, True)
    # while the controller is away the end of an earlier start is not taken for the job's
    answers(tmp_path, monkeypatch, scontrol=AWAY)
    assert queue.look("7") is None
    answers(tmp_path, monkeypatch, scontrol=UNKNOWN, sacct="exit 1")
    state = queue.look("7")
    assert state is not None
    assert (state.state, state.ended, state.well) == ("UNKNOWN", True, False)


def test_refusals_are_slurms_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "sbatch: error: Batch job submission failed: Invalid account or account/partition"
    why = "sbatch: error: lab rule 7: name an account"
    answers(tmp_path, monkeypatch, sbatch=f"printf '%s\\n' '{why}' '{said}' >&2; exit 1")
    with pytest.raises(JobError, match=r"^Slurm refuses x.sh: Invalid account or") as caught:
        queue.submit(tmp_path / "x.sh")
    assert caught.value.exit_code == 9
    assert "lab rule 7" in caught.value.detail
    ping = "echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup1) at b is UP'; exit 1"
    answers(tmp_path, monkeypatch, scontrol=ping, squeue="", scancel="", srun="")
    found = {result.name: result for result in check.look(Cluster(), ())}
    assert found["controller"].level == "ok"
    assert found["one-task jobs"].level == "error"
    assert "lab rule 7: name an account; error: Batch job" in found["one-task jobs"].detail


def test_options_of_a_cluster_need_one() -> None:
    for option in (("--nodes", "2"), ("--time", "1:00:00"), ("--dry-run",), ("--prepare-here",)):
        done = ft("recipe", "run", "mistral-qlora", *option)
        assert (done.code, "is for a cluster" in done.err) == (2, True)
    done = ft("recipe", "run", "mistral-qlora", "--on", "slurm-generic", "--time", "8h")
    assert (done.code, "is not a time like" in done.err) == (2, True)
    done = ft("recipe", "run", "mistral-qlora", "--on", "slurm-generic", "--time", "5:00")
    assert (done.code, "leaves nothing of time" in done.err) == (2, True)


def test_dry_run_prints_the_scripts_and_makes_nothing(tmp_path: Path) -> None:
    arguments = ("recipe", "run", "mistral-qlora", "--smoke", "--on", "slurm-generic", "--dry-run")
    done = ft(*arguments, "--json", cwd=tmp_path, FT_HOME=str(tmp_path / "home"))
    assert [job["name"] for job in done.json] == ["prepare", "train", "finish"]
    assert "#SBATCH --job-name=ft-train-mistral-qlora" in done.json[1]["script"]
    assert done.json[1]["commands"]["train"][0] == "srun"
    assert list(tmp_path.iterdir()) == []


def test_jobs_are_for_batch_scripts(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    done = ft("job", tmp_path, "train")
    assert (done.code, "is for batch scripts" in done.err) == (2, True)


def slurm_run(tmp_path: Path, status: str, done: tuple[str, ...] = ()) -> Record:
    """The record of a run that was submitted as two jobs, with the markers of `done` stages."""
    record = Record(new_layout(tmp_path, "x"), {})
    for stage in done:
        write_json(record.layout.marker(stage), {"stage": stage})
    record.update(
        status=status,
        stages={"preprocess": {"status": "done"}, "train": {"status": "running"}},
        jobs=[{"name": "prepare", "id": "6", "stages": ["preprocess"], "log": ""},
              {"name": "train", "id": "7", "stages": ["train"], "log": ""}],
    )  # fmt: skip
    return record


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        ("RUNNING NodeList=n1", "running", "job 7 (train) on n1"),
        ("PENDING Reason=Priority", "queued", "job 7 (train): Priority"),
        ("PENDING Reason=JobHeldUser", "queued", "`scontrol release 7` lets it start"),
        ("PENDING Reason=PartitionTimeLimit", "queued", "waiting does not help: it asks for more"),
        ("PENDING Reason=QOSMaxNodePerJobLimit", "queued", "waiting does not help"),
        ("PENDING Reason=AssocGrpCPUMinutesLimit", "queued", "the budget of your account"),
        ("EXPEDITING", "queued", "EXPEDITING"),  # a word of a newer Slurm is not an end
        ("TIMEOUT", "timeout", "the time limit was reached (TIMEOUT); go on with: ft recipe run"),
        ("BOOT_FAIL", "failed", "a node did not start"),
        ("OUT_OF_MEMORY", "failed", "more memory than the job had"),
        ("NODE_FAIL", "failed", "a node failed"),
        ("CANCELLED", "cancelled", "it was cancelled"),
        ("FAILED ExitCode=72:0", "failed", "a module of the cluster profile cannot be loaded"),
        ("FAILED ExitCode=0:53", "failed", "the node could not open its log"),
        ("FAILED ExitCode=127:0", "failed", "its node has no such ft (exit code 127)"),
        ("FAILED ExitCode=0:9", "failed", "FAILED, signal 9, before ft could say why"),
        ("COMPLETED ExitCode=0:0", "failed", "COMPLETED, exit code 0, before ft"),
    ],
)
def test_a_run_is_what_its_jobs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, status: str, words: str
) -> None:
    answers(tmp_path, monkeypatch, scontrol=f"echo 'JobId=7 JobState={state}'")
    monkeypatch.setattr(jobs, "SEEN_WITHIN", 0)
    record = slurm_run(tmp_path / "runs", "running", done=("preprocess",))
    found = live(record)
    assert (found.status, words in found.reason) == (status, True), found.reason
    # what Slurm will not say for long is in the record, and believed from there
    answers(tmp_path, monkeypatch, scontrol=AWAY, sacct="exit 1")
    again = open_record(record.layout.root)
    kept = status in ("timeout", "failed", "cancelled")
    assert (live(again).status == status) == (kept or status == "running")
    assert again.document["stages"]["train"]["status"] == (status if kept else "running")


def test_stages_that_are_done_count_whatever_slurm_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(tmp_path, monkeypatch, scontrol=UNKNOWN, sacct="exit 1")
    done = slurm_run(tmp_path / "runs", "running", done=("preprocess", "train"))
    assert live(done).status == "done"
    lost = slurm_run(tmp_path / "runs", "running", done=("preprocess",))
    assert live(lost).status == "died"
    said = slurm_run(tmp_path / "runs", "failed", done=("preprocess",))
    said.update(error="train: out of memory", exit_code=5)
    assert (live(said).status, live(said).reason) == ("failed", "train: out of memory")
    assert exit_code(said, live(said).status) == 5


@pytest.mark.parametrize("between", ["waiting", "interrupted"])
def test_while_slurm_does_not_answer_no_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """Between two jobs, or two starts of one, the record alone reads like an end."""
    answers(tmp_path, monkeypatch, scontrol=AWAY, scancel=AWAY)
    record = slurm_run(tmp_path / "runs", between, done=("preprocess",))
    with pytest.raises(JobError, match="is still queued") as waited:
        wait_for(record, timeout=0)
    assert "Slurm does not answer" in waited.value.detail
    with pytest.raises(JobError, match="scancel failed"):
        end(record)
    with pytest.raises(JobError, match="does not answer about job 6"):
        none_active(record)
    assert open_record(record.layout.root).document["status"] == between


def test_a_slurm_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that hangs takes a minute for each job."""
    answers(tmp_path, monkeypatch, scontrol=f'echo >> "$0.log"\n{AWAY}')
    for _ in range(3):
        slurm_run(tmp_path / "runs", "queued")
    done = ft("runs", "list", "--in", tmp_path / "runs", "--json")
    assert [run["status"] for run in done.json] == ["queued"] * 3
    assert (tmp_path / "scontrol.log").read_text() == "\n"


def test_what_a_node_wrote_may_be_seen_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system remembers for some time that a file was not there."""
    record = slurm_run(tmp_path / "runs", "running", done=("preprocess",))
    marker = record.layout.marker("train")
    late = f"(sleep 0.7; echo '{{}}' > '{marker}') > /dev/null 2>&1 &"
    answers(tmp_path, monkeypatch,
            scontrol=f"{late}\necho 'JobId=7 JobState=COMPLETED ExitCode=0:0'")  # fmt: skip
    assert live(record).status == "done"
    assert open_record(record.layout.root).document["status"] == "done"


def test_a_stage_that_is_done_again_outside_of_a_job_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = slurm_run(tmp_path / "runs", "running", done=("preprocess",))
    answers(tmp_path, monkeypatch, scontrol="echo 'JobId=7 JobState=COMPLETED ExitCode=0:0'")
    with locked(record.layout):
        assert live(open_record(record.layout.root)).status == "running"
    assert open_record(record.layout.root).document["status"] == "running"


def test_logs_are_found_where_the_run_is_now(tmp_path: Path) -> None:
    record = slurm_run(tmp_path / "before", "failed")
    assert "nothing was said yet" in ft("runs", "logs", record.layout.root).err
    write_atomic(record.layout.log("slurm-train"), "a word")
    moved = record.layout.root.rename(tmp_path / "moved")
    assert ft("runs", "logs", moved, "train-job").out == "a word"


def test_a_log_that_is_followed_says_why_there_is_nothing_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "ASK_EVERY", -1.0)
    monkeypatch.setattr(following, "EVERY", 0.0)
    log = tmp_path / "train.log"
    record = slurm_run(tmp_path / "runs", "running", done=("preprocess",))
    states = [f"echo 'JobId=7 JobState={state}'" for state in (
        "PENDING Reason=Priority", "RUNNING NodeList=n1", "TIMEOUT",
    )]  # fmt: skip
    answers(tmp_path, monkeypatch, scontrol=(
        'echo >> "$0.n"; case $(wc -l < "$0.n") in\n'
        f"1) {states[0]};;\n2) printf 'caf\\303' >> '{log}'; {states[1]};;\n"
        f"3) printf '\\251' >> '{log}'; {states[1]};;\n*) {states[2]};;\nesac"
    ))  # fmt: skip
    follow_logs(record, [log])
    out, err = capfd.readouterr()
    assert out == "café"  # though half of its last letter was written first
    said = [line.partition(": ")[2] for line in err.splitlines() if "-x-" in line]
    assert said[:2] == ["queued (job 7 (train): Priority)", "running (job 7 (train) on n1)"]
    assert said[2].startswith("timeout (job 7 (train): the time limit was reached")


def test_a_run_of_this_machine_is_ended_by_its_process(tmp_path: Path) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    code = (
        "import sys, time; from pathlib import Path\n"
        "from orchestrator.runs.lock import locked\n"
        "from orchestrator.runs.record import open_record\n"
        f"record = open_record(Path({str(record.layout.root)!r}))\n"
        "with locked(record.layout): print('held', flush=True); time.sleep(60)\n"
    )
    record.update(status="running", host=socket.gethostname())
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        process.stdout.readline()
        here = record.layout.lock.read_text()
        record.layout.lock.write_text(here.replace(socket.gethostname(), "elsewhere"))
        with pytest.raises(UsageError, match="runs on elsewhere"):
            end(record)
        record.layout.lock.write_text(here)
        assert end(record).status == "died"
        assert process.wait() < 0
    assert end(record).status == "died"


def test_a_job_that_never_gets_on_is_not_requeued_for_ever(tmp_path: Path) -> None:
    record = slurm_run(tmp_path / "runs", "queued")
    profile = Cluster(requeue=3).model_dump(mode="json")
    record.update(cluster={"name": "c", "time": "1:00:00", "profile": profile})
    done = ft("job", record.layout.root, "train", SLURM_JOB_ID="7", SLURM_RESTART_COUNT="4")
    assert (done.code, "was requeued 4 times, 3 are allowed" in done.err) == (9, True)
    again = open_record(record.layout.root)
    assert (again.document["status"], again.document["exit_code"]) == ("failed", 9)


def test_a_run_stays_where_it_was_started(tmp_path: Path) -> None:
    record = Record(new_layout(tmp_path, "x"), {})
    record.update(status="failed")
    done = ft("recipe", "run", "--resume", record.layout.root, "--on", "slurm-generic")
    assert (done.code, "was started on this machine" in done.err) == (2, True)


def test_a_tracker_without_a_key_is_an_error_in_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    recipe = loaded(**{"tracking.type": "wandb"})
    assert "FT231" in {f.code for f in resolve(recipe).findings if f.level == "warning"}
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, site=Site("c", Cluster()))
    assert [f.code for f in caught.value.findings if f.level == "error"] == ["FT231"]
