"""The command line: exit codes, clean stdout, and that it stays light."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import BASIC, ROOT, ft, write_recipe

HEAVY = {"torch", "transformers", "axolotl", "llamafactory", "datasets", "peft", "accelerate"}


def test_help_names_every_group() -> None:
    done = ft("--help")
    assert done.code == 0
    for word in ("recipe", "backend", "runs", "inspect-tokens", "preprocess", "merge", "export"):
        assert word in done.out


@pytest.mark.parametrize("module", ["orchestrator.cli.main", "orchestrator.pipeline"])
def test_no_ml_package_is_ever_imported(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "import orchestrator.setup_run, orchestrator.exporting\n"
        "import orchestrator.labels.document, orchestrator.labels.terminal\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\nfrom orchestrator.cli.main import app\n"
        "slow = {'pydantic', 'pyarrow', 'numpy', 'huggingface_hub', 'tokenizers', 'yaml'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["recipe", "run"],
        ["recipe", "run", "none-such"],
        ["recipe", "run", "none.yaml"],
        ["recipe", "validate"],
        ["recipe", "run", "--resume", "none"],
        ["recipe", "nonsense"],
        ["runs", "show", "none"],
        ["recipe", "run", "mistral-qlora", "--backend", "torchtune"],
        ["recipe", "run", "mistral-qlora", "--nonsense"],
    ],
)
def test_usage_errors_exit_2_without_a_traceback(arguments: list[str]) -> None:
    done = ft(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.strip()


def test_misspelled_recipe_name() -> None:
    assert "did you mean 'mistral-qlora'?" in ft("recipe", "show", "mistral-qlroa").err


def test_findings_look_like_a_compiler_s(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "x.yaml", **{"training.learning_rte": 1e-4})
    done = ft("recipe", "validate", path)
    line = path.read_text().splitlines().index("  learning_rte: 0.0001") + 1
    assert done.code == 2
    assert (
        f"{path}:{line}:3: error[FT101]: unknown key 'learning_rte' in training "
        "(did you mean 'learning_rate'?)"
    ) in done.err


def test_json_is_one_document_whatever_happens(tmp_path: Path) -> None:
    good, bad = write_recipe(tmp_path / "a.yaml"), write_recipe(tmp_path / "b.yaml", training={})
    done = ft("recipe", "validate", good, "--json")
    assert done.json["ok"] is True
    done = ft("recipe", "validate", bad, "--json")
    assert done.code == 2
    assert [f["code"] for f in done.json["recipes"][0]["findings"]] == ["FT104"]
    done = ft("recipe", "run", bad, "--json")
    assert done.code == 2
    assert done.json["error"]["exit_code"] == 2
    assert done.json["findings"][0]["line"]
    assert len(ft("recipe", "list", "--json").json) >= 6


def test_json_of_a_usage_error_is_a_document_too() -> None:
    done = ft("recipe", "run", "mistral-qlora", "--nonsense", "--json")
    assert (done.code, done.json["error"]["exit_code"]) == (2, 2)


def test_broken_record_is_listed_and_cannot_be_resumed(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", "{}")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(text)
    listed = ft("runs", "list", "--json", cwd=tmp_path)
    assert [run["status"] for run in listed.json] == ["broken", "failed"]
    for name in ("a", "b"):
        done = ft("recipe", "run", "--resume", f"runs/{name}", cwd=tmp_path)
        assert done.code == 2, done.err


def test_show_schema_and_new(tmp_path: Path) -> None:
    assert ft("recipe", "show", "mistral-qlora").out.startswith("# QLoRA")
    shown = ft("recipe", "show", "mistral-qlora", "--resolved", "--set", "training.epochs=7")
    assert "epochs: 7" in shown.out
    schema = json.loads(ft("recipe", "schema").out)
    assert schema["properties"]["training"]
    done = ft("recipe", "new", "mine", "--from", "qwen-lora-chat", cwd=tmp_path)
    assert done.code == 0, done.err
    text = (tmp_path / "recipes" / "mine.yaml").read_text()
    assert text.startswith("# LoRA of Qwen")
    assert "ft recipe run mine" in text
    assert ft("recipe", "validate", "mine", cwd=tmp_path).code == 0
    assert ft("recipe", "new", "mine", cwd=tmp_path).code == 2


def test_render_writes_the_backend_files_only(tmp_path: Path) -> None:
    done = ft("recipe", "render", "mistral-qlora", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "preprocess.yaml", "train.yaml", "merge.yaml",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_plan_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ft(
        "recipe", "plan", "llama3-lora-ds3", "--json", "--smoke", cwd=tmp_path, FT_HOME=str(home)
    )
    assert done.code == 0, done.err
    assert [stage["name"] for stage in done.json["stages"]] == [
        "fetch", "preprocess", "inspect", "train", "merge", "export",
    ]  # fmt: skip
    assert "train.yaml" in done.json["files"]
    assert list(tmp_path.iterdir()) == []
    assert ft("recipe", "plan", "mistral-qlora", cwd=tmp_path, FT_HOME=str(home)).code == 0


def test_prequantized_base_is_refused_at_once(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    path = write_recipe(tmp_path / "r.yaml", **{"model.base": "base"})
    done = ft("recipe", "run", path)
    assert done.code == 2
    assert "cannot be merged into a quantized base (its config.json says gptq)" in done.err


def test_no_install_fails_with_the_remedy(tmp_path: Path) -> None:
    done = ft(
        "recipe", "run", "mistral-qlora", "--smoke", "--no-install", cwd=tmp_path,
        FT_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert done.code == 4
    assert "ft backend install axolotl" in done.err
    assert not (tmp_path / "runs").exists()


def test_runs_list_and_show(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "20261122-101500-x-abc123"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "running", "recipe": "x"}))
    assert ft("runs", "list", "--json", cwd=tmp_path).json[0]["status"] == "died"
    assert "died" in ft("runs", "list", cwd=tmp_path).out
    assert "died" in ft("runs", "show", "abc123", cwd=tmp_path).out
    assert ft("runs", "list", cwd=run).out.startswith("no runs")


def test_bug_of_ours_exits_70_and_shows_its_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli import main
    from orchestrator.recipe import sources

    def broken() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(sources, "recipe_names", broken)
    monkeypatch.delenv("FT_DEBUG", raising=False)
    assert main.run(["recipe", "list"]) == 70
    err = capsys.readouterr().err
    assert "this is a bug in ft: ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    monkeypatch.setenv("FT_DEBUG", "1")
    assert main.run(["recipe", "list"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_basic_recipe_of_the_tests_is_sound(tmp_path: Path) -> None:
    assert BASIC["name"] == "basic"
    assert ft("recipe", "validate", write_recipe(tmp_path / "r.yaml")).code == 0


def test_deep_needs_the_backend_and_a_known_gpu(tmp_path: Path) -> None:
    deep = ("recipe", "validate", "mistral-qlora", "--deep", "--no-install")
    done = ft(*deep, cwd=tmp_path, FT_HOME=str(tmp_path / "home"))
    assert done.code == 4
    assert "ft backend install axolotl" in done.err
    assert ft(*deep, "--gpu", "z9", cwd=tmp_path).code == 2
    # what our own checks refuse is not asked about
    done = ft(*deep, "--set", "data.packing=5", cwd=tmp_path, FT_HOME=str(tmp_path / "home"))
    assert done.code == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_a_daemon_has_closed(closed: str) -> None:
    done = ft("runs", "list", before=["sh", "-c", f'exec "$@" {closed}', "sh"])
    assert (done.code, done.err) == (0, "")


def test_a_locale_without_our_letters(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "x.yaml", name="é…")
    old = ft("recipe", "show", path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert old.out == ft("recipe", "show", path).out
