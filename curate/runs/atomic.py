"""Writes files atomically: under a temporary name, flushed to the disk, then renamed. A reader finds all or nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.types import CurateError

DISK_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow",
}

NO_RIGHTS = {
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "it lies on a disk that is read-only",
}

UNUSABLE_PATH = {
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOTDIR: "a file stands where a folder is expected",
    errno.EISDIR: "a folder stands where a file is expected",
}

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def exit_code(error: BaseException) -> int:
    """Return the exit code of a process that ends with `error`.

    130  interrupted
    2    a person's mistake, or a limit of the machine: a full disk, no permission, a path that no file can have, a
         process that hangs
    1    anything else: a fault of this package
    """
    if isinstance(error, KeyboardInterrupt):
        return 130
    limit = isinstance(error, OSError) and error.errno in {*DISK_FULL, *NO_RIGHTS, *UNUSABLE_PATH}
    return 2 if limit or isinstance(error, (CurateError, TimeoutError)) else 1


@contextmanager
def disk_full_as_oserror(path: Path) -> Iterator[None]:
    """Raise the OSError of a full disk where a native library raises an exception of its own.

    tokenizers raises a bare Exception whose text ends with "(os error 28)". The command line recognises a full disk by
    the number of an OSError. Other exceptions pass unchanged.

    Args:
        path: what is written, for the message.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = _OS_ERROR.search(str(error))
        if found is None or int(found[1]) not in DISK_FULL:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the place of `path` when the block ends without an error.

    The block writes a file or a folder there. After an error it is removed, and what was at `path` is unchanged.

    Raises:
        CurateError: a file stands where a folder belongs, or a folder where a file belongs.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CurateError(f"{path.parent} is no folder: expected one to write into, move what stands there") from None
    token = secrets.token_hex(4)  # process numbers repeat on several machines
    temporary = path.with_name(f".{path.name}.{token}.curate-tmp")
    try:
        yield temporary
        _flush(temporary)  # before the rename: else a power cut could leave the new name on a file without its bytes
        if os.path.lexists(path) and temporary.is_dir() != path.is_dir():
            expected = "folder" if temporary.is_dir() else "file"
            raise CurateError(f"{path} is no {expected}: expected one of the run, move what stands there")
        if path.is_dir():
            # A folder cannot be renamed onto one that holds files, so two renames are needed. After a kill between
            # them `RunFolder.clean` puts the old folder back.
            old = path.with_name(f".{path.name}.{token}.curate-old")
            os.rename(path, old)
            os.rename(temporary, path)
            remove(old)
        else:
            os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a whole folder, if there is one."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except PermissionError as error:  # rmtree gives a bare file name; the message needs the path
        raise PermissionError(error.errno, error.strerror, str(path)) from None


def link_or_copy(source: Path, folder: Path) -> None:
    """Put a file or folder into `folder` as well: as hard links, or as copies where the file system has no links."""
    target = folder / source.name
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(str(source), str(target))


def keep_others(old: Path, new: Path, *, ours: Collection[str]) -> None:
    """Put what the folder `old` holds into `new` as well, but for the names `ours`: a person's files stay.

    Call it inside `replacing`, when `new` is written and before it takes the place of `old`.
    """
    for path in sorted(old.iterdir()) if old.is_dir() else []:
        if path.name not in ours and not os.path.lexists(new / path.name):
            link_or_copy(path, new)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)


def _flush(path: Path) -> None:
    """Flush a file to the disk, or a folder with every file in it."""
    for item in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(item, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
