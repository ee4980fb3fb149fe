"""Stores chunks of scores, one file each, until scores.parquet is written from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curate.types import BatchScores


def write_chunk(path: Path, scores: BatchScores) -> None:
    """Write the scores of a chunk to `path`."""
    with open(path, "wb") as file:  # given a name instead of a file, savez would append .npz
        np.savez(
            file,
            rows=scores.rows,
            status=scores.status,
            confidence=scores.confidence,
            log_prob=scores.log_prob,
            split=np.array(scores.split),
        )


def read_chunk(path: Path) -> BatchScores:
    """Read what `write_chunk` wrote."""
    with np.load(path, allow_pickle=False) as arrays:  # a pickle can run code when it is read
        return BatchScores(
            arrays["rows"], arrays["status"], arrays["confidence"], arrays["log_prob"], bool(arrays["split"])
        )
