"""The run folder: a file is there whole or not at all, and what a kill leaves behind harms nobody."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate.runs.atomic import disk_full_as_oserror, exit_code, replacing, write_json, write_text
from curate.runs.folder import RunFolder
from curate.runs.keys import changed_names, fingerprint
from curate.types import CurateError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.dictionaries(st.sampled_from(["data", "model", "prompt.template", "score.exits"]), json_values)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---------------------------------------------------------------- replacing


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent, "a rename is atomic within a file system only"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["new", "new/file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_in_the_block_leaves_the_old_and_nothing_of_the_new(
    tmp_path: Path, error: type[BaseException], kind: str
) -> None:
    path = tmp_path / "x"
    path.mkdir() if kind == "folder" else path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012 - the block is what is tested
        if kind == "folder":
            temporary.mkdir()
            (temporary / "half").write_text("half")
        else:
            temporary.write_text("half")
        raise error
    assert names(tmp_path) == ["x"]
    assert kind == "folder" or path.read_text() == "old"


def test_a_full_folder_is_replaced_by_another_with_nothing_of_the_old_in_it(tmp_path: Path) -> None:
    path = tmp_path / "selection"
    for name in ("old", "new"):
        with replacing(path) as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep" / name).write_text(name)
    assert names(tmp_path) == ["selection", "selection/deep", "selection/deep/new"]


def kill_between_renames(monkeypatch: pytest.MonkeyPatch, path: Path, after: int) -> None:
    """Replace the folder `path` and stop, as a kill does, after so many of its renames: nothing is tidied up."""
    rename, done = os.rename, []

    def rename_or_die(source: Path, target: Path) -> None:
        if len(done) == after:
            raise SystemExit
        done.append(source)
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # noqa: PT012
        patch.setattr("curate.runs.folder.os.rename", rename_or_die)
        patch.setattr("curate.runs.atomic.remove", lambda path: None)
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()


@pytest.mark.parametrize("part", ["selections", "comparison"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_kill_between_two_renames_leaves_the_old_or_the_new_folder_once_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, part: str
) -> None:
    place = tmp_path / part / "main"
    place.mkdir(parents=True)
    (place / "old").touch()
    if after < 2:
        kill_between_renames(monkeypatch, place, after)
        assert len(names(tmp_path)) > 3, "something was left behind"
    else:  # both renames done, the old one not yet removed
        os.rename(place, place.with_name(".main.0123abcd.curate-old"))
        place.mkdir()
        (place / "new").touch()
    RunFolder(tmp_path).clean()
    whole = "new" if after == 2 else "old"
    assert names(tmp_path) == [part, f"{part}/main", f"{part}/main/{whole}"]


def test_cleaning_touches_nothing_that_is_not_ours(tmp_path: Path) -> None:
    """A person may name a folder with other things in it as run.dir, their home among them."""
    theirs = [".bashrc.old", ".config.tmp", ".x.12.tmp", "notes.curate-tmp", "work/mine", "selections/main/kept.json"]
    theirs.append("comparison/random-8-seed1/cell.json")
    ours = [
        ".scores.parquet.ab.curate-tmp",
        "work/scores/.000003.chunk.ab.curate-tmp",
        "work/scores-masked/part-2/.000003.chunk.ab.curate-tmp",
        "comparison/.random-8-seed1.ab.curate-tmp/cell.json",
        "work/launches/x/y.json",
    ]
    for name in theirs + ours:
        write_text(tmp_path / name, "")
    RunFolder(tmp_path).clean()
    assert [n for n in names(tmp_path) if (tmp_path / n).is_file()] == sorted(theirs)


# ---------------------------------------------------------------- keys and the manifest


@given(keys)
def test_a_key_stored_and_read_again_has_the_same_fingerprint(key: dict[str, object]) -> None:
    again = json.loads(json.dumps(dict(reversed(key.items()))))
    assert fingerprint(again) == fingerprint(key)
    assert changed_names(key, again) == []


@given(keys, keys)
def test_keys_have_the_same_fingerprint_just_when_nothing_changed(
    old: dict[str, object], new: dict[str, object]
) -> None:
    assert changed_names(old, new) == changed_names(new, old)
    if fingerprint(old) == fingerprint(new):
        assert not changed_names(old, new)


def test_a_change_is_refused_by_name_with_both_values(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "first")
    old = {"model.dtype": "float32", "data": "a" * 64, "score.exits": [1, 2]}
    run.require_same("scores", old, dict(old))
    with pytest.raises(CurateError) as refusal:
        run.require_same("scores", old, old | {"model.dtype": "bfloat16", "data": "b" * 64})
    assert str(refusal.value) == (
        f"{tmp_path}/first holds scores made with other settings or inputs; changed: "
        "data (aaaaaaaaaaaa... -> bbbbbbbbbbbb...), model.dtype (float32 -> bfloat16). "
        "Set them back, or start afresh with another run.dir."
    )


def test_a_stage_is_done_with_the_key_it_was_recorded_with_and_no_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.stage("scores") is None
    run.record("scores", {"data": 1}, out=3, dropped={})
    run.describe(seed=0)
    assert run.is_done("scores", {"data": 1})
    assert not run.is_done("scores", {"data": 2})
    assert not run.is_done("clusters", {"data": 1})
    stage = run.stage("scores")
    assert stage is not None
    assert (stage["out"], stage["key"], run.manifest()["seed"]) == (3, {"data": 1}, 0)
    run.forget("scores")
    assert run.manifest() == {"seed": 0, "stages": {}}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stages": 3}', "null"])
def test_a_manifest_that_is_none_is_a_mistake_not_a_crash(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "manifest.json", text)
    with pytest.raises(CurateError, match=r"manifest\.json is not the manifest of a run; use another run\.dir"):
        RunFolder(tmp_path).stage("scores")


# ---------------------------------------------------------------- status.json


def status(run: RunFolder) -> dict[str, object]:
    value: dict[str, object] = json.loads((run.path / "status.json").read_text())
    return value


def test_the_first_failure_of_a_launch_stays_and_the_next_launch_overwrites_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_status("score", "running", None, "", launch="a")
    run.write_status("score", "failed", 2, "no memory", launch="a")
    run.write_status("score", "interrupted", 130, "ended by the launcher", launch="a")
    assert status(run) == {
        "verb": "score",
        "state": "failed",
        "exit_code": 2,
        "message": "no memory",
        "launch": "a",
    }
    run.write_status("score", "running", None, "", launch="b")
    assert status(run)["state"] == "running"


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"launch": "a"}'])
def test_a_broken_status_is_overwritten(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    write_text(tmp_path / "status.json", text)
    run.write_status("score", "done", 0, "", launch="a")
    assert status(run)["state"] == "done"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (CurateError("a mistake"), 2),
        (TimeoutError("hangs"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (OSError(errno.EFBIG, "File too large"), 2),
        (OSError(errno.EACCES, "Permission denied"), 2),
        (OSError(errno.EROFS, "Read-only file system"), 2),
        (OSError(errno.EIO, "Input/output error"), 1),
        (RuntimeError("ours"), 1),
    ],
)
def test_the_exit_code_tells_whose_fault_it_is(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_what_a_native_library_says_of_a_full_disk_is_an_os_error_and_all_else_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full, disk_full_as_oserror(tmp_path):
        raise Exception("No space left on device (os error 28)")
    assert exit_code(full.value) == 2
    for error in (RuntimeError("Permission denied (os error 13)"), ValueError("no"), FileNotFoundError("x")):
        with pytest.raises(type(error)) as same, disk_full_as_oserror(tmp_path):
            raise error
        assert same.value is error


# ---------------------------------------------------------------- the lock

_HOLD = """
import sys
from pathlib import Path
from curate.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_let_in_once_the_first_is_killed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", _HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(CurateError) as refusal, run.lock():
            pass
        assert str(refusal.value).startswith(f"another run works in {run.path} (process {first.pid} on ")
        first.kill()
    with run.lock():
        pass


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CurateError, match=r"cannot write to run\.dir"), RunFolder(tmp_path / "file" / "run").lock():
        pass


def test_json_is_written_as_people_read_it(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"é": [1]})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'


# ---------------------------------------------------------------- what is no file


def special(path: Path, kind: str) -> None:
    """Put something that is neither a file nor a folder at a path."""
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):  # a socket's path is short
            made.bind(path.name)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device"])
@pytest.mark.parametrize(
    "place", [".lock", "manifest.json", "scores.parquet", "selections/main/kept.json", "work/tokens/rows.bin"]
)
def test_a_pipe_a_socket_or_a_device_in_a_run_folder_is_named_and_never_read(
    tmp_path: Path, kind: str, place: str
) -> None:
    RunFolder(tmp_path).claim(begin=True)
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    special(path, kind)
    for call in (lambda: RunFolder(tmp_path).claim(begin=True), lambda: curate.open(tmp_path)):
        with pytest.raises(CurateError, match=f"{path} is {kind}: expected a file or folder of the run"):
            call()
