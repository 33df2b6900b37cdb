"""Submitting a chain of jobs to a Slurm that refuses, is slow, or is interrupted."""

import dataclasses
import os
from pathlib import Path

import pytest

from orchestrator import submission
from orchestrator.cli import job
from orchestrator.clusters.load import load_cluster
from orchestrator.clusters.profile import Cluster
from orchestrator.clusters.site import Site
from orchestrator.errors import JobError, RunInterrupted, UsageError
from orchestrator.files import write_json
from orchestrator.plan import Plan
from orchestrator.recipe.load import load
from orchestrator.recipe.sources import find_recipe
from orchestrator.runs.jobs import end, live
from orchestrator.runs.record import Record, new_layout, open_record
from tests.helpers import ft
from tests.test_slurm import AWAY, answers, planned

REFUSED = "echo 'sbatch: error: Batch job submission failed: Invalid qos' >&2; exit 1"
TIMED_OUT = "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1"


@dataclasses.dataclass(frozen=True)
class Chain:
    """A run that can be submitted as three jobs, and what Slurm's commands were called with."""

    plan: Plan
    record: Record
    site: Site
    programs: Path

    def submit(self) -> list[str]:
        """The ids of its jobs."""
        return [entry["id"] for entry in submission.submit(self.plan, self.record, self.site)]

    def called(self, program: str) -> list[str]:
        """The arguments of each call."""
        log = self.programs / f"{program}.log"
        return log.read_text().splitlines() if log.exists() else []

    def written(self) -> dict[str, object]:
        """What the record says of the run."""
        document = open_record(self.record.layout.root).document
        return {name: document.get(name) for name in ("status", "exit_code")}


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """With a Slurm that takes every job: its ids are 1, 2, 3."""
    site = Site("slurm-generic", load_cluster("slurm-generic").cluster)
    layout = new_layout(tmp_path / "my runs", "x")
    plan = planned(load(find_recipe("mistral-qlora")), site, str(layout.root))
    record = Record(layout, {})
    record.update(status="waiting", stages={s.name: {"status": "waiting"} for s in plan.stages})
    made = Chain(plan, record, site, tmp_path / "bin")
    made.programs.mkdir()
    slurm(made, monkeypatch)
    return made


def slurm(chain: Chain, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Answers of Slurm's commands; `$n` is how often the program was called."""
    default = {"sbatch": "echo $n", "scontrol": "", "scancel": "", "squeue": ""}
    answers(chain.programs, monkeypatch, **{
        name: f'echo "$*" >> "$0.log"; n=$(wc -l < "$0.log")\n{text}'
        for name, text in {**default, **programs}.items()
    })  # fmt: skip


def test_a_chain_is_held_until_it_is_whole(chain: Chain) -> None:
    assert chain.submit() == ["1", "2", "3"]
    first, second, third = chain.called("sbatch")
    assert "--hold" in first
    assert "--dependency=afterok:1 --kill-on-invalid-dep=yes" in second
    assert "--dependency=afterok:2" in third
    assert chain.called("scontrol") == ["release 1"]
    assert chain.written() == {"status": "queued", "exit_code": None}


def test_what_else_sbatch_prints_is_no_id(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(chain, monkeypatch, sbatch='echo "Welcome 2 you"; echo "$n;cluster"; echo "--> done"')
    assert chain.submit() == ["1", "2", "3"]


def test_nothing_is_left_in_the_queue_when_a_job_is_refused(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(chain, monkeypatch, sbatch=f"[ $n = 3 ] && {{ {REFUSED}; }}; echo $n")
    with pytest.raises(JobError, match=r"^Slurm refuses finish\.sh: Invalid qos"):
        chain.submit()
    assert chain.called("scancel") == ["1 2"]
    assert chain.called("scontrol") == []
    assert chain.written() == {"status": "failed", "exit_code": 9}


def test_a_job_that_slurm_took_without_saying_so_is_cancelled_too(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = chain.record.layout.script("train")
    slurm(chain, monkeypatch, sbatch=f"[ $n = 2 ] && {{ {TIMED_OUT}; }}; echo $n",
          squeue=f"echo '2|{script}'; echo '9|/other/train.sh'")  # fmt: skip
    with pytest.raises(JobError, match="Socket timed out"):
        chain.submit()
    assert chain.called("scancel") == ["1 2"]


def test_a_first_job_that_cannot_be_released_takes_all_along(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(chain, monkeypatch, scontrol=AWAY)
    with pytest.raises(JobError, match=r"job 1 cannot be released: .*Unable to contact"):
        chain.submit()
    assert chain.called("scancel") == ["1 2 3"]
    assert chain.written() == {"status": "failed", "exit_code": 9}


def test_ctrl_c_waits_for_sbatch_and_cancels_what_it_has_submitted(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(chain, monkeypatch, sbatch='[ $n = 2 ] && kill -INT "$PPID"; echo $n')
    with pytest.raises(RunInterrupted, match="are cancelled"):
        chain.submit()
    assert chain.called("scancel") == ["1 2"]
    assert chain.written() == {"status": "cancelled", "exit_code": 130}


def test_jobs_that_cannot_be_cancelled_either_are_named_and_found_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(chain, monkeypatch, sbatch=f"[ $n = 2 ] && {{ {REFUSED}; }}; echo $n", scancel=AWAY)
    with pytest.raises(JobError, match="Invalid qos") as refused:
        chain.submit()
    assert "the jobs 1 are still in the queue" in refused.value.hint
    held = "echo 'JobId=1 JobState=PENDING Reason=JobHeldUser'"
    slurm(chain, monkeypatch, scontrol=held)
    assert_halfway(chain)


def test_an_ft_that_was_killed_halfway_is_no_run_in_the_queue(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first job is held; releasing it would prepare data that nothing trains on."""
    chain.record.update(status="queued", jobs=[])
    assert live(open_record(chain.record.layout.root)).status == "interrupted"
    of_job = {"name": "prepare", "id": "1", "stages": ["preprocess", "inspect"], "log": ""}
    chain.record.update(jobs=[of_job])
    slurm(chain, monkeypatch, scontrol="echo 'JobId=1 JobState=PENDING Reason=JobHeldUser'")
    assert_halfway(chain)
    for stage in ("preprocess", "inspect"):
        write_json(chain.record.layout.marker(stage), {"stage": stage})
    for status in ("queued", "waiting"):  # before, and after somebody has released it all the same
        chain.record.update(status=status)
        assert live(open_record(chain.record.layout.root)).status == "interrupted"


def assert_halfway(chain: Chain) -> None:
    """The run was not submitted as a whole, and what was can be cancelled."""
    found = live(open_record(chain.record.layout.root))
    assert (found.status, "ft ended before all its jobs were submitted" in found.reason) == (
        "interrupted", True,
    )  # fmt: skip
    end(open_record(chain.record.layout.root))
    assert chain.called("scancel")[-1] == "1"


def test_two_who_submit_one_run_do_not_train_it_twice(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Record(chain.record.layout, dict(chain.record.document))
    submission.submit(chain.plan, other, chain.site)
    slurm(chain, monkeypatch, scontrol="echo 'JobId=1 JobState=RUNNING'")
    with pytest.raises(UsageError, match=r"job 1 \(prepare\) of this run is RUNNING"):
        chain.submit()
    assert len(chain.called("sbatch")) == 3


@pytest.mark.parametrize(("first", "cancelled"), [("FAILED", ["2", "3"]), ("COMPLETED", [])])
def test_what_waits_for_a_failed_job_does_not_stand_in_the_way(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, first: str, cancelled: list[str]
) -> None:
    """Slurm itself cancels it, a moment after `ft runs wait` has told the failure."""
    chain.submit()
    says = f'[ "${{!#}}" = 1 ] && s={first} || s=PENDING; echo "JobId=${{!#}} JobState=$s"'
    slurm(chain, monkeypatch, scontrol=says, sbatch="echo 1$n")
    if cancelled:
        assert len(chain.submit()) == 3
    else:
        with pytest.raises(UsageError, match=r"job 2 \(train\) of this run is PENDING"):
            chain.submit()
    assert chain.called("scancel") == cancelled


def test_a_run_that_is_done_stays_done(chain: Chain) -> None:
    for stage in chain.plan.stages:
        write_json(chain.record.layout.marker(stage.name), {"stage": stage.name})
    chain.record.update(status="done", exit_code=0)
    assert chain.submit() == []
    assert chain.written() == {"status": "done", "exit_code": 0}


def test_where_no_job_can_be_submitted_nothing_is_downloaded_first(tmp_path: Path) -> None:
    done = ft("recipe", "run", "mistral-qlora", "--on", "slurm-generic", cwd=tmp_path,
              PATH=str(tmp_path / "bin"), HF_ENDPOINT="http://127.0.0.1:9")  # fmt: skip
    assert (done.code, "not found: sbatch, squeue" in done.err) == (6, True), done.err
    assert not (tmp_path / "runs").exists()


def test_a_login_of_the_hub_is_known_in_jobs_that_have_another_cache(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    site = Site("c", Cluster(scratch=str(tmp_path / "scratch")))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    submission.enter(site, "axolotl")
    scripts = [made.script for made in submission.jobs(chain.plan, site)]
    assert all(f"export HF_TOKEN_PATH={tmp_path}/.cache/huggingface/token" in s for s in scripts)
    assert "hf_secret" not in "".join(scripts)


def test_a_job_that_fails_before_its_stages_says_why(chain: Chain) -> None:
    chain.submit()
    done = ft("job", chain.record.layout.root, "prepare", SLURM_JOB_ID="1")
    assert (done.code, "was never started" in done.err) == (2, True)  # the record has no context
    found = live(open_record(chain.record.layout.root))
    assert (found.status, "was never started" in found.reason) == ("failed", True)


def test_a_profile_that_a_later_ft_refuses_is_told_and_replaced(chain: Chain) -> None:
    chain.submit()
    known = {**open_record(chain.record.layout.root).document["cluster"]}
    known["profile"] = {**known["profile"], "gpu_count": 4}
    chain.record.reread()
    chain.record.update(cluster=known)
    done = ft("job", chain.record.layout.root, "prepare", SLURM_JOB_ID="1")
    assert (done.code, "does not take: gpu_count: " in done.err) == (2, True)
    assert "--on slurm-generic" in done.err
    again = ft("recipe", "run", "--resume", chain.record.layout.root, "--on", "slurm-generic")
    assert "gpu_count" not in again.err


@pytest.mark.parametrize(("failures", "refused"), [(2, ""), (9, "job 7 cannot be requeued: no")])
def test_a_controller_that_is_just_restarted_ends_no_run(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, failures: int, refused: str
) -> None:
    monkeypatch.setattr(job, "REQUEUE_PAUSES", (0.0, 0.0, 0.0))
    slurm(chain, monkeypatch, scontrol=f"[ $n -gt {failures} ] || {{ echo no >&2; exit 1; }}")
    assert job._requeued("7") == refused
