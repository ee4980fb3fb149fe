"""The recipe that the words of a command name: of a run folder that was moved, or came from somebody else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curate.cli import main
from curate.cli.recipes import recipe_of
from curate.config import SmallModel, dump_recipe, load_recipe
from curate.config.places import restore_paths

pytestmark = pytest.mark.usefixtures("workplace")
Capture = pytest.CaptureFixture[str]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- a folder that was moved, another working folder


def test_the_recipe_of_a_moved_folder_works_on_that_folder(capsys: Capture) -> None:
    Path("elsewhere").mkdir()
    shutil.move("run", "elsewhere/moved")
    assert main(["run", "elsewhere/moved/recipe.yaml"]) == 0
    assert capsys.readouterr().out.count("finished before") >= 3
    assert not Path("run").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [["../workplace/run/recipe.yaml"], ["run.dir=../workplace/run"]], ids=" ".join)
def test_from_another_working_folder_data_and_model_are_found(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["run", *words, "select.name=second"]) == 0
    assert names(tmp_path / "here") == []
    assert (tmp_path / "workplace" / "run" / "selections" / "second" / "adapter").is_dir()


@pytest.mark.parametrize("words", [["../workplace/run/recipe.yaml"], ["run.dir=../workplace/run"]], ids=" ".join)
def test_a_replay_from_another_working_folder_rewrites_no_path(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("run/recipe.yaml").read_bytes()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["run", *words]) == 0
    assert (tmp_path / "workplace" / "run" / "recipe.yaml").read_bytes() == before


def test_a_file_of_the_same_name_in_another_working_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("alpaca.json", "llama", "embedder"):
        (here / name).mkdir() if "." not in name else (here / name).write_text("[]")
    monkeypatch.chdir(here)
    begun = (tmp_path / "workplace").resolve()
    for words in (["../workplace/run/recipe.yaml"], ["run.dir=../workplace/run"]):
        recipe = recipe_of(words)
        found = [recipe.data.path, recipe.model.name, recipe.embed.model]
        assert found == [str(begun / name) for name in ("alpaca.json", "llama", "embedder")]
    assert recipe_of(["../workplace/run/recipe.yaml", "data.path=alpaca.json"]).data.path == "alpaca.json"
    monkeypatch.chdir(begun)
    assert recipe_of(["run/recipe.yaml"]).data.path == "alpaca.json"


def test_every_path_of_a_recipe_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.csv", "set.json", "other.json"):
        Path(name).write_text("x")
    Path("tasks").mkdir()
    words = [
        "score.columns=mine.csv",
        "score.ifd={model: chat}",
        "train.model=chat",
        "evaluate.include_path=tasks",
        "evaluate.sets=[{name: a, path: set.json}, {name: b, path: org/on-the-hub}, {name: c, path: other.json}]",
    ]
    written = load_recipe(Path("run/recipe.yaml"), words)
    Path("run/recipe.yaml").write_text(dump_recipe(written))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = recipe_of(["../workplace/run/recipe.yaml"])
    base = tmp_path / "workplace"
    assert found.score.columns == str(base / "mine.csv")
    assert found.score.ifd == SmallModel(model=str(base / "chat"))
    assert found.train.model == str(base / "chat")
    assert found.evaluate.include_path == str(base / "tasks")
    sets = [str(base / "set.json"), "org/on-the-hub", str(base / "other.json")]
    assert [one.path for one in found.evaluate.sets] == sets
    assert restore_paths(found, written, Path("../workplace/run")) == written
    said = recipe_of(["../workplace/run/recipe.yaml", "score.columns=mine.csv"])
    assert said.score.columns == "mine.csv"


def test_a_path_that_leads_elsewhere_now_is_written_as_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    earlier = load_recipe(Path("run/recipe.yaml"))
    given = load_recipe(Path("run/recipe.yaml"), [f"data.path={tmp_path / 'other.json'}"])
    assert restore_paths(given, earlier, Path("run")).data.path == str(tmp_path / "other.json")


def test_a_copy_works_on_itself_and_leaves_the_first_alone() -> None:
    shutil.copytree("run", "copy")
    assert main(["select", "copy/recipe.yaml", "select.name=second"]) == 0
    assert names(Path("copy/selections")) == ["main", "second"]
    assert names(Path("run/selections")) == ["main"]


def test_a_folder_that_the_command_names_holds() -> None:
    shutil.copytree("run", "copy")
    assert main(["select", "copy/recipe.yaml", "run.dir=run", "select.name=second"]) == 0
    assert names(Path("run/selections")) == ["main", "second"]


def test_data_beside_the_recipe_is_found_and_data_that_is_nowhere_is_named(capsys: Capture) -> None:
    shutil.move("alpaca.json", "run/alpaca.json")
    assert recipe_of(["run/recipe.yaml"]).data.path == "run/alpaca.json"
    Path("run/alpaca.json").unlink()
    assert main(["select", "run/recipe.yaml"]) == 2
    assert "no such file or folder: alpaca.json" in capsys.readouterr().err


def test_a_recipe_outside_a_run_folder_names_its_folder_itself() -> None:
    shutil.copy("run/recipe.yaml", "mine.yaml")
    Path("mine").mkdir()
    shutil.copy("run/recipe.yaml", "mine/recipe.yaml")
    assert recipe_of(["mine.yaml"]).run.dir == recipe_of(["mine/recipe.yaml"]).run.dir == "run"


# ---------------------------------------------------------------- a folder of somebody else

_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path("{mark}").touch()
class Strange(LlamaConfig):
    model_type = "strange"
class StrangeModel(LlamaForCausalLM):
    config_class = Strange
"""


@pytest.fixture
def mark() -> Path:
    """A file that appears when the code in the model folder runs; the run's recipe names that model and trusts it."""
    mark = Path("mark").absolute()
    config = json.loads(Path("llama/config.json").read_text())
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "m.Strange", "AutoModelForCausalLM": "m.StrangeModel"},
    }
    Path("llama/config.json").write_text(json.dumps(config))
    Path("llama/m.py").write_text(_CODE.format(mark=mark))
    recipe = Path("run/recipe.yaml")
    text = recipe.read_text()
    assert "trust_remote_code: false" in text
    recipe.write_text(text.replace("trust_remote_code: false", "trust_remote_code: true"))
    return mark


@pytest.mark.parametrize("verb", ["train", "run", "score", "select", "preview", "doctor", "report"])
def test_no_code_runs_because_a_run_folder_says_so(mark: Path, verb: str, capsys: Capture) -> None:
    # As train.model: the scoring model may not change, and would be refused for that.
    words = ["train.learning_rate=1e-3", "train.model=llama"] if verb in ("train", "run") else []
    code = main([verb, "run.dir=run", *words])
    assert not mark.exists()
    if verb not in ("select", "report"):
        assert code == 2
        assert "brings its own Python code" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run/recipe.yaml"], ["run.dir=run", "model.trust_remote_code=true"]], ids=" ".join)
def test_code_runs_where_the_command_names_the_recipe_or_says_it(mark: Path, words: list[str]) -> None:
    assert recipe_of(words).model.trust_remote_code
    assert main(["train", *words, "train.learning_rate=1e-3", "train.model=llama"]) == 0
    assert mark.exists()


def test_task_files_and_a_judge_are_not_taken_from_a_run_folder_that_nobody_named(capsys: Capture) -> None:
    """lm-eval runs Python that task files name, and a judge is sent a key of the environment."""
    judge = "{base_url: 'http://localhost:1', model: m, api_key_env: HOME}"
    text = Path("run/recipe.yaml").read_text().replace("include_path: null", "include_path: tasks")
    Path("run/recipe.yaml").write_text(text.replace("judge: null", f"judge: {judge}"))
    evaluate = recipe_of(["run.dir=run"]).evaluate
    assert (evaluate.include_path, evaluate.judge) == (None, None)
    warned = capsys.readouterr().err
    assert "evaluate.include_path" in warned
    assert "evaluate.judge" in warned
    named = recipe_of(["run/recipe.yaml"]).evaluate
    assert named.include_path == "tasks"
    assert named.judge is not None
    said = recipe_of(["run.dir=run", "evaluate.include_path=tasks"]).evaluate
    assert said.include_path == "tasks"
