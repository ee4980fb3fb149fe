"""One run at a time works in a folder."""

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

# POSIX locks belong to a process: they do not keep two threads of one process apart, so those are remembered here.
_held: set[str] = set()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it when the process ends, however it ends.

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
        except OSError as error:  # some shared file systems have no locks
            logger.warning("%s cannot be locked (%s): do not start two runs in it", folder, error.strerror)
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
    """Whether a file has not been removed, or replaced, since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
