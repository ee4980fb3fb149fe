"""Files and folders without rights, for a real user who is not root: a line that names them, never a traceback."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import WORDS

from curate.cli import main
from curate.runs.atomic import exit_code, remove

NOBODY = 65534
Capture = pytest.CaptureFixture[str]

VERBS = {
    "run": ["run", *WORDS],
    "replay": ["run", "run/recipe.yaml"],
    "select": ["select", "run.dir=run", "select.name=second"],
    "again": ["select", "run.dir=run", "select.keep=20", "select.replace=true"],
    "train": ["train", "run.dir=run", "train.max_steps=3"],
    "report": ["report", "run.dir=run"],
    "new": ["score", *WORDS, "run.dir=new"],
    "inside": ["score", *WORDS, "run.dir=locked/new"],
    "embed": ["embed", *WORDS, "run.dir=new"],
    "folder": ["score", "data.path=shards", *WORDS[1:3], "run.dir=new", "score.exits=3"],
    "preview": ["preview", *WORDS],
}


@contextmanager
def rights(place: Path, mode: int) -> Iterator[None]:
    """Within it a file or folder has these rights, and this process is a user who is not root."""
    before = place.stat().st_mode
    place.chmod(mode)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        if place.exists():
            place.chmod(before)


@pytest.fixture
def owned(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The workplace as another user has it: in a folder that everybody may enter, and all of it theirs."""
    with tempfile.TemporaryDirectory() as outside:
        Path(outside).chmod(0o755)
        place = Path(shutil.copytree(workplace, Path(outside) / "workplace"))
        (place / "locked").mkdir()
        (place / "shards").mkdir()
        shutil.copy(place / "alpaca.json", place / "shards" / "a.json")
        if os.getuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, -1)
        monkeypatch.chdir(place)
        yield place
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("place", "mode", "verb", "named"),
    [
        ("alpaca.json", 0, "new", "cannot read alpaca.json"),
        ("alpaca.json", 0, "preview", "cannot read alpaca.json"),
        ("shards", 0, "folder", "shards"),
        ("shards/a.json", 0, "folder", "shards/a.json"),
        ("llama", 0, "new", "llama"),
        ("llama/config.json", 0, "new", "llama/config.json"),
        ("llama/tokenizer.json", 0, "new", "llama/tokenizer.json"),
        ("llama/model.safetensors", 0, "new", "cannot read llama/model.safetensors: Permission denied"),
        ("embedder", 0, "embed", "embedder"),
        ("embedder/model.safetensors", 0, "embed", "cannot read embedder/model.safetensors: Permission denied"),
        ("embedder/1_Pooling", 0, "embed", "embedder/1_Pooling"),
        ("locked", 0o500, "inside", "locked/new"),
        ("locked", 0, "inside", "locked/new"),
        ("run", 0, "run", "run"),
        ("run", 0o500, "select", "run"),
        ("run", 0o500, "report", "run"),
        ("run/.lock", 0, "select", "cannot write to run.dir run"),
        ("run/recipe.yaml", 0, "run", "run/recipe.yaml"),
        ("run/recipe.yaml", 0, "replay", "cannot read the recipe run/recipe.yaml"),
        ("run/manifest.json", 0, "select", "cannot read run/manifest.json"),
        ("run/scores.parquet", 0, "select", "run/scores.parquet"),
        ("run/clusters.parquet", 0, "select", "run/clusters.parquet"),
        ("run/embeddings.npy", 0, "report", "run/embeddings.npy"),
        ("run/work", 0, "train", "run/work"),
        ("run/work", 0o500, "train", "run/work"),
        ("run/work/tokens", 0, "train", "run/work/tokens"),
        ("run/selections", 0, "select", "run/selections"),
        ("run/selections", 0o500, "select", "run/selections"),
        ("run/selections/main", 0, "train", "run/selections/main"),
        ("run/selections/main", 0o500, "again", "run/selections"),
        ("run/selections/main/selection.parquet", 0, "train", "run/selections/main/selection.parquet"),
        ("run/selections/main/adapter", 0, "run", "run/selections/main/adapter"),
    ],
)
def test_what_has_no_rights_is_named_in_a_line(
    owned: Path, place: str, mode: int, verb: str, named: str, capsys: Capture
) -> None:
    main(["preview", *WORDS])  # as root: it imports what this user may not read
    capsys.readouterr()
    with rights(owned / place, mode):
        code = main(VERBS[verb])
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
    assert (code, len(lines)) == (2, 1), said
    assert lines[0].startswith("curate: ")
    assert named in lines[0]


def test_no_rights_are_a_persons_mistake_for_programs_too() -> None:
    for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
        assert exit_code(OSError(number, "x")) == 2
    assert exit_code(OSError(errno.EIO, "x")) == 1


def test_what_could_not_be_removed_is_named_with_its_folder(owned: Path) -> None:
    with rights(owned / "run" / "selections" / "main", 0o500), pytest.raises(PermissionError) as caught:
        remove(Path("run/selections/main"))
    assert caught.value.filename == "run/selections/main"
