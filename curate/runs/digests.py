"""Computes digests of files, so that a run notices that one of its files was changed or replaced."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from curate.types import CurateError

_BLOCKS = 64
_BLOCK = 1 << 16


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        CurateError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from None


def digest_of_blocks(path: Path) -> str:
    """Return a digest (hex) of a file: of its size and 64 blocks of 64 KiB; of a small file all of it."""
    size = path.stat().st_size
    sha256 = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK:
            sha256.update(file.read())
        else:
            # Blocks evenly spaced: the file may have gigabytes, and every stage that reads it checks it first.
            for start in np.linspace(0, size - _BLOCK, _BLOCKS).astype(int).tolist():
                file.seek(start)
                sha256.update(file.read(_BLOCK))
    return sha256.hexdigest()[:32]
