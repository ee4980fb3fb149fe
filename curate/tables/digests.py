"""Short digests by which a run knows its own tables again, in whatever order their rows stand.

They tell a table of this run from one of another that was put in its place: both look right by themselves.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCKS = 64
_BLOCK = 1 << 16


def digest_of_ids(ids: npt.NDArray[Any]) -> str:
    """Return a digest (hex) of the records' ids, [N] of at least 16 bytes each, in order of row.

    >>> digest_of_ids(np.array([b"a" * 32, b"b" * 32])) == digest_of_ids(np.array([b"b" * 32, b"a" * 32]))
    False
    """
    size = ids.dtype.itemsize
    return _sha256(np.ascontiguousarray(np.ascontiguousarray(ids).view(np.uint8).reshape(-1, size)[:, :16]))


def digest_of_values(values: npt.NDArray[Any]) -> str:
    """Return a digest (hex) of an array of numbers or booleans in order of row."""
    return _sha256(np.ascontiguousarray(values))


def digest_of_blocks(path: Path) -> str:
    """Return a digest (hex) of a file: its size, and 64 KiB at 64 places; of a small file all of it."""
    size = path.stat().st_size
    sha256 = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK:
            sha256.update(file.read())
        else:
            for start in np.linspace(0, size - _BLOCK, _BLOCKS).astype(int).tolist():
                file.seek(start)
                sha256.update(file.read(_BLOCK))
    return sha256.hexdigest()[:32]


def _sha256(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(values.view(np.uint8).data).hexdigest()[:32]
