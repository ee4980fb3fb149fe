"""Puts embeddings on a plane, by principal component analysis (PCA)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Projection:
    """Points of a map.

    rows      int64 [M], the input rows that are shown, ascending
    points    float64 [M, 2], their coordinates
    explained fraction of the variance of these rows that the two axes explain, 0 to 1
    """

    rows: IntArray
    points: FloatArray
    explained: float


def project(embeddings: npt.NDArray[np.float32], rows: IntArray) -> Projection | None:
    """Return the rows on their first two principal components; None for fewer than 3 rows or if all rows are equal.

    Args:
        embeddings: float32 [N, D]; rows with NaN are left out.
        rows: int64, the rows to show.
    """
    vectors = np.asarray(embeddings[rows], np.float64)
    there = np.isfinite(vectors).all(axis=1)
    rows, vectors = rows[there], vectors[there]
    if len(rows) < 3 or vectors.shape[1] < 2:
        return None
    centred = vectors - vectors.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2
    if variance.sum() == 0:
        return None
    # PCA leaves the sign of an axis open; the largest entry is made positive, so that a map is the same every time.
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return Projection(rows, centred @ axes.T, float(variance[:2].sum() / variance.sum()))
