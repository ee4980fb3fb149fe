"""Computes short digests of tables, so that a run notices a table of another run that was put in place of its own.

Such a table looks right by itself: it has the right columns, and maybe the right number of rows. Values are taken in
order of `row`, so a table whose rows were sorted otherwise has the same digest.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt


def digest_of_ids(ids: npt.NDArray[Any]) -> str:
    """Return a digest (hex) of the records' ids in order of row: [N], at least 16 bytes each, of which 16 count.

    >>> digest_of_ids(np.array([b"a" * 32, b"b" * 32])) == digest_of_ids(np.array([b"b" * 32, b"a" * 32]))
    False
    """
    size = ids.dtype.itemsize
    # 16 of the 32 bytes of a SHA-256: `score_columns` holds no more of each id in memory.
    return _sha256(np.ascontiguousarray(np.ascontiguousarray(ids).view(np.uint8).reshape(-1, size)[:, :16]))


def digest_of_values(values: npt.NDArray[Any]) -> str:
    """Return a digest (hex) of an array of numbers or booleans in order of row."""
    return _sha256(np.ascontiguousarray(values))


def _sha256(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(values.view(np.uint8).data).hexdigest()[:32]
