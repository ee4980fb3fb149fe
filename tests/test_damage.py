"""Every file of a run damaged, gone, or with a folder in its place: an answer on a line or two, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import WORDS

from curate.cli import main

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
        assert f"{Path(name).name} is damaged" in said
