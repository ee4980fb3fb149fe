"""Chunks of scores on their way to scores.parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curate.types import BatchScores


def write_chunk(path: Path, scores: BatchScores) -> None:
    """Store the scores of a chunk until all are there."""
    with open(path, "wb") as file:  # given a name, savez would append .npz
        np.savez(
            file,
            rows=scores.rows,
            status=scores.status,
            confidence=scores.confidence,
            log_prob=scores.log_prob,
            split=np.array(scores.split),
        )


def read_chunk(path: Path) -> BatchScores:
    """Read what `write_chunk` stored."""
    with np.load(path, allow_pickle=False) as arrays:
        return BatchScores(
            arrays["rows"], arrays["status"], arrays["confidence"], arrays["log_prob"], bool(arrays["split"])
        )
