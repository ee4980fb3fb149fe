"""Every file of a run damaged, gone, or with a folder in its place: an answer on a line or two, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import WORDS

from curate.cli import main
from curate.config import load_recipe
from curate.pipeline import perform
from curate.runs.keys import read_key, write_key

FILES = (
    "scores.parquet",
    "embeddings.npy",
    "clusters.parquet",
    "selections/main/selection.parquet",
    "manifest.json",
    "status.json",
    "recipe.yaml",
    ".curate",
    ".lock",
)
PUBLISHED = (
    "scores.parquet",
    "embeddings.npy",
    "selections/main/kept.json",
    "selections/main/adapter/adapter_model.safetensors",
)


def damage(path: Path, how: str) -> None:
    path.unlink()
    if how == "garbage":
        path.write_bytes(bytes(range(256)) * 2)
    elif how == "folder":
        path.mkdir()
        (path / "file").touch()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("how", ["garbage", "folder", "gone"])
@pytest.mark.parametrize("name", FILES)
def test_each_verb_answers(name: str, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no CurateError would come out of `main` as it is, with its traceback."""
    damage(Path("run", name), how)
    verbs = {
        "score": [*WORDS],
        "select": [*WORDS, "select.name=second", "select.keep=9"],
        "train": [*WORDS, "train.learning_rate=1e-3"],
        "report": [*WORDS],
    }
    codes = {}
    for verb, words in verbs.items():
        shutil.copytree("run", "copy", symlinks=True)
        codes[verb] = main([verb, *words, "run.dir=copy"])
        shutil.rmtree("copy")
    said = capsys.readouterr().err
    assert set(codes.values()) <= {0, 2}, codes
    assert all(line.startswith(("curate: ", "warning: ")) for line in said.splitlines()), said
    if how != "gone" and name.endswith((".parquet", ".npy")):
        assert 2 in codes.values()
        assert f"{Path(name).name} is damaged" in said or (how == "folder" and f"{name} is no file" in said)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("how", ["file", "link"])
@pytest.mark.parametrize("name", ["selections", "selections/main", "selections/main/adapter"])
def test_what_stands_where_a_folder_belongs_is_named_and_stays(
    name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path("run", name)
    shutil.rmtree(place)
    if how == "file":
        place.write_text("somebody's")
    else:
        place.symlink_to("nowhere")
    assert main(["run", *WORDS]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"curate: run/{name} is ")
    assert place.is_symlink() if how == "link" else place.read_text() == "somebody's"


@pytest.mark.usefixtures("workplace")
def test_a_folder_where_a_file_belongs_is_named_and_stays(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("scores.parquet", "embeddings.npy", "clusters.parquet"):
        place = Path("run", name)
        place.unlink()
        place.mkdir()
        (place / "precious").write_text("x")
        assert main(["run", *WORDS]) == 2
        assert name in capsys.readouterr().err
        assert (place / "precious").read_text() == "x"
        shutil.rmtree(place)
        assert main(["run", *WORDS]) == 0


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("name", ["manifest.json", "status.json", "work/tokens/key.json"])
def test_json_that_is_too_deep_is_damaged(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run", name).write_text("[" * 100_000)
    assert main(["report", "run.dir=run"]) in (0, 2)
    assert main(["run", *WORDS]) in (0, 2)
    assert all(line.startswith(("curate: ", "warning: ")) for line in capsys.readouterr().err.splitlines())


@pytest.mark.usefixtures("workplace")
def test_a_damaged_tokenizer_of_the_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/work/tokens/tokenizer/tokenizer.json").write_text("{")
    assert main(["select", "run.dir=run", "select.name=second"]) == 2
    said = capsys.readouterr().err
    assert "cannot read run/work/tokens/tokenizer/tokenizer.json" in said
    assert "remove run/work/tokens/tokenizer, and it is made again" in said
    shutil.rmtree("run/work/tokens/tokenizer")
    assert main(["select", "run.dir=run", "select.name=second"]) == 0


def test_a_key_tells_whether_the_files_that_lay_beside_it_are_whole(tmp_path: Path) -> None:
    key = {"data": "a", "seed": 0}
    (tmp_path / "tokens").write_bytes(b"0123")
    write_key(tmp_path, key, with_files=True)
    (tmp_path / "later.chunk").write_bytes(b"x")
    assert read_key(tmp_path) == key
    (tmp_path / "later.chunk").write_bytes(b"y")
    assert read_key(tmp_path) == key
    (tmp_path / "tokens").write_bytes(b"0124")  # as long as before
    assert read_key(tmp_path) is None
    (tmp_path / "tokens").unlink()
    assert read_key(tmp_path) is None
    write_key(tmp_path, key)
    (tmp_path / "later.chunk").unlink()
    assert read_key(tmp_path) == key


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("scores", "work/texts/texts.utf8"),
        ("scores", "work/tokens/input_ids.i4"),
        ("embeddings", "work/embeddings/rows.npy"),
        ("training", "work/train-main/features.npz"),
    ],
)
def test_what_an_interrupted_call_left_is_made_again_where_it_is_damaged(stage: str, name: str) -> None:
    def stop(now: str, done: int, total: int | None, unit: str) -> None:
        if now == stage:
            raise KeyboardInterrupt

    expected = [Path("run", file).read_bytes() for file in PUBLISHED]
    shutil.rmtree("run")
    with pytest.raises(KeyboardInterrupt):
        perform("run", load_recipe(None, WORDS), progress=stop)
    path = Path("run", name)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")  # one byte, of the same length
    perform("run", load_recipe(None, WORDS))
    assert [Path("run", file).read_bytes() for file in PUBLISHED] == expected
