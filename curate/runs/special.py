"""Refuses pipes, sockets and devices that stand in place of files of a run: reading one may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from curate.types import CurateError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: Path) -> None:
    """Refuse a path that is no regular file and no folder, also behind a link. What is not there passes.

    Raises:
        CurateError: it is a pipe, a socket or a device.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError:  # not there, or not to be looked at: opening it says so
        return
    if kind in _KINDS:
        raise CurateError(f"{path} is {_KINDS[kind]}: expected a file or folder of the run; remove it")


def refuse_special_inside(folder: Path) -> None:
    """Refuse a folder that holds a pipe, a socket or a device at any depth.

    Raises:
        CurateError: it holds one; it is named.
    """
    for place, _, names in os.walk(folder):  # links to folders are not followed
        for entry in names:
            refuse_special(Path(place, entry))
