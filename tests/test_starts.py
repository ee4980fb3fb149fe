"""Starts that come to nothing: what is missing is named in the order of a run, and no folder is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import WORDS

from curate.cli import main
from curate.config import load_recipe
from curate.pipeline import perform
from curate.runs.folder import RunFolder
from curate.runs.launch import open_launch
from curate.types import CurateError

pytestmark = pytest.mark.usefixtures("workplace")
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.name=./nowhere"], "data.path is not set"),
        (["data.path=nowhere.json", "model.name=./nowhere"], "no such file or folder: nowhere.json"),
        (["data.path=alpaca.json"], "expected model.name"),
        (["data.path=alpaca.json", "model.name=./nowhere", "embed.model=./none"], "no model folder ./nowhere"),
        (["data.path=alpaca.json", "model.name=llama", "embed.model=./none"], "no embedder folder ./none"),
        (["data.path=alpaca.json", "model.name=llama", "embed.model=embedder", "train.report_to=smoke"], "report_to"),
        (
            ["data.path=alpaca.json", "model.name=llama", "model.attention=bogus"],
            "model.attention=bogus cannot be used",
        ),
    ],
)
def test_what_is_missing_is_named_in_the_order_of_a_run(words: list[str], message: str, capsys: Capture) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["run", *words, "run.dir=new/deep/run"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("train", "train.report_to=smoke", "train.report_to: expected none, all or one of"),
        ("compare", "train.report_to=smoke", "train.report_to: expected none, all or one of"),
        ("compare", "train.model=./none", "no model folder ./none"),
        ("compare", "embed.model=./none", "no embedder folder ./none"),
        ("compare", "embed.model=empty", "has neither modules.json nor config.json"),
    ],
)
def test_what_training_needs_is_looked_at_before_a_cell_or_an_adapter_is_begun(
    verb: str, word: str, message: str, capsys: Capture
) -> None:
    Path("empty").mkdir()
    assert main([verb, *WORDS, word, "run.dir=run" if verb == "train" else "run.dir=new"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "tokens:" not in out
    assert "scores:" not in out


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError("can't allocate memory: 9 GB")])
def test_too_little_memory_for_training_says_what_to_do(
    error: Exception, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("curate.training.lora._with_adapter", exhausted)
    assert main(["train", *WORDS, "train.rank=7"]) == 2
    assert "out of memory with train.batch_size=4 and train.rank=7: halve them" in capsys.readouterr().err


def test_a_number_of_processes_that_is_none_is_refused_and_leaves_no_folder(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert main(["score", *WORDS[:2], "run.dir=new"]) == 2
    assert "WORLD_SIZE" in capsys.readouterr().err
    assert not Path("new").exists()


def test_empty_variables_of_a_launcher_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")
    shutil.rmtree("run/selections")
    perform("select", load_recipe(None, WORDS))
    assert Path("run/selections/main/kept.json").exists()
    assert "WORLD_SIZE" not in os.environ


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_the_number_of_a_process_without_the_number_of_processes_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    perform("train", load_recipe(None, [*WORDS, "train.rank=3", "train.max_steps=1"]))
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"
    assert name not in os.environ


def test_a_start_that_comes_to_nothing_leaves_what_a_person_had_there() -> None:
    for name in ("empty", "with-recipe"):
        Path(name).mkdir()
    Path("with-recipe/recipe.yaml").write_text("run: {seed: 1}\n")
    for name in ("empty", "with-recipe"):
        assert main(["run", "model.name=x", f"run.dir={name}"]) == 2
    assert list(Path("empty").iterdir()) == []
    assert [path.name for path in Path("with-recipe").iterdir()] == ["recipe.yaml"]


def test_a_failure_in_a_run_that_was_begun_keeps_its_status() -> None:
    assert main(["score", *WORDS, "data.path=other.json"]) == 2
    status = json.loads(Path("run/status.json").read_text())
    assert (status["verb"], status["state"], status["exit_code"]) == ("score", "failed", 2)
    assert "other.json" in status["message"]


@pytest.mark.parametrize("word", ["--data.path=x", "--run.seed=3"])
def test_a_setting_in_the_habit_of_other_programs_is_answered(word: str, capsys: Capture) -> None:
    assert main(["run", word]) == 2
    assert f"settings are written {word.lstrip('-')}, without dashes" in capsys.readouterr().err


def test_of_two_starts_in_one_process_one_is_refused() -> None:
    """A POSIX lock does not keep two threads apart."""
    recipe = load_recipe(None, [*WORDS, "run.dir=new"])
    refused: list[str] = []
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        folder = RunFolder(Path("new"))
        with open_launch(folder, "score", begin=True, progress=lambda *_: None, hang_timeout=9.0):
            holding.set()
            over.wait(30)

    first = threading.Thread(target=hold)
    first.start()
    assert holding.wait(30)
    try:
        perform("score", recipe)
    except CurateError as error:
        refused.append(str(error))
    over.set()
    first.join()
    assert refused == ["another run of this process works in new; wait or use another run.dir"]
    perform("score", recipe)


def test_ctrl_c_before_anything_is_begun_is_a_line_and_130() -> None:
    """The signal comes while the first thing that curate imports is imported."""
    Path("typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path[1:]])}
    command = [sys.executable, "-m", "curate", "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 130
    assert done.stderr == "curate: interrupted; the same command starts again, and goes on from what is finished\n"


def test_ctrl_c_while_a_library_runs_text_as_code_is_130_too() -> None:
    """Python remembers such an interruption and would end by the signal, after the exit code was said."""
    Path("interrupting.py").write_text(
        "import os, signal, sys\nimport curate.pipeline.settle as settle\nfrom curate import __main__ as entry\n"
        "import curate.pipeline.opening as opening\n"
        "def stop(*words, **more):\n"
        "    exec('import os, signal; os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(9)]')\n"
        "opening.settle = stop\nsys.argv = ['curate', *sys.argv[1:]]\nentry.main()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[1:])}
    command = [sys.executable, "interrupting.py", "score", *WORDS, "run.dir=new"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 130, done.stderr
    assert done.returncode != -signal.SIGINT
    assert done.stderr.startswith("curate: interrupted; what is finished is kept. Continue with:")
    assert not Path("new").exists()


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_the_work_is_done_where_nobody_listens(closed: str) -> None:
    words = f"score {' '.join(WORDS[:2])} run.dir=quiet score.exits=3 {closed}"
    command = ["bash", "-c", f'exec "{sys.executable}" -m curate {words}']
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0
    assert not any(word in done.stderr for word in (b"Traceback", b"Error", b"warning"))  # a slow start says so
    assert Path("quiet/scores.parquet").read_bytes() == Path("run/scores.parquet").read_bytes()


def test_a_mistake_is_an_exit_code_where_nobody_listens(tmp_path: Path) -> None:
    command = ["bash", "-c", f'exec "{sys.executable}" -m curate score data.path=nowhere.json >&- 2>&-']
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, cwd=tmp_path, timeout=100, check=False).returncode == 2
