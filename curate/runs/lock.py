"""Locks a run folder, so that only one run at a time works in it."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.types import CurateError

logger = logging.getLogger(__name__)

# POSIX locks belong to a process and do not keep two threads of one process apart. So what is held is remembered here.
_held: set[str] = set()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. The system frees the lock when the process ends, also after a kill.

    Raises:
        CurateError: another run holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise CurateError(f"cannot write to run.dir {folder}: {error.strerror}") from None
    real = os.path.realpath(folder)
    if real in _held:
        os.close(descriptor)
        raise CurateError(f"another run of this process works in {folder}; wait or use another run.dir")
    with open(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # POSIX locks also hold across NFS clients
        except (BlockingIOError, PermissionError):  # which of the two depends on the system
            raise CurateError(
                f"another run works in {folder} ({file.read().strip()}); wait or use another run.dir"
            ) from None
        except OSError as error:  # some shared file systems have no locks; refusing would shut their users out
            logger.warning("%s cannot be locked (%s): do not start two runs in it", folder, error.strerror)
        # A start that fails removes .lock as it ends. A lock on the removed file would keep nobody out.
        if not _is_there(folder / ".lock", descriptor):
            raise CurateError(f"another start has just ended in {folder}: start again")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _held.add(real)
        try:
            yield
        finally:
            _held.discard(real)


def _is_there(path: Path, descriptor: int) -> bool:
    """Say whether a path is still the file that was opened: not removed, and not replaced."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
