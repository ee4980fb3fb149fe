"""Near-duplicates: fills quotas in order, passing over records whose embedding is too close to a kept one's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from curate.selection.orders import Rows, bounds
from curate.selection.pool import KEPT, NEAR_DUPLICATE, OUTRANKED, Reasons
from curate.types import IntArray

_WALK = 2_048  # rows looked at together: their products with each other are 16 MB
_ROUNDING = 1e-6  # float32 products of equal unit rows are not always 1


def walk(
    ordered: Rows,
    sizes: IntArray,
    quotas: IntArray,
    *,
    embeddings: npt.NDArray[np.float32],
    clusters: npt.NDArray[np.integer] | None,
    threshold: float,
) -> Reasons:
    """Fill every quota in order, passing over near-duplicates: uint8 [M], kept, outranked or near_duplicate.

    A row is passed over if its cosine to a kept row reaches `threshold` (to within 1e-6). It is compared with the kept
    rows of its cluster, in all strata; without clusters, with those of its stratum. Rows after the one that fills the
    quota are outranked. If a stratum ends before its quota is full, the first of the rows passed over are kept after
    all, so sizes are always exact. A row without an embedding is near to nothing.

    Cost: (rows looked at) * (kept rows of their cluster) * D multiply-adds. With clusters that is little. Without,
    keeping 10,000 rows of 384 dimensions takes about 40 G of them (seconds), 100,000 rows a hundred times as many.

    Args:
        ordered: int32 [M], the rows of stratum 0 in order, then those of stratum 1, ...
        sizes: int64 [S], rows of every stratum, sum M.
        quotas: int64 [S], at most the sizes.
        embeddings: float32 [N, D], unit rows, NaN where a row has none.
        clusters: int [N], or None.
        threshold: a cosine in (0, 1].

    Source: SemDeDup, arXiv 2303.09540, for a threshold inside k-means clusters. SemDeDup keeps the record farthest from
    the centroid; here the first by the order is kept.

    Row 1 is close to row 0 (cosine .96), so the quota of two is filled by rows 0 and 2:

    >>> vectors = np.array([[1, 0], [0.96, 0.28], [0, 1]], np.float32)
    >>> rows, one = np.arange(3, dtype=np.int32), np.array([3])
    >>> walk(rows, one, np.array([2]), embeddings=vectors, clusters=None, threshold=0.95).tolist()
    [0, 2, 0]
    """
    decisions = np.full(len(ordered), OUTRANKED, np.uint8)
    kept_rows: dict[int, list[int]] = {}
    for (start, stop), quota in zip(bounds(sizes), quotas.tolist(), strict=True):
        if clusters is None:  # then rows are compared inside their stratum only
            kept_rows = {}
        decisions[start:stop] = _fill(ordered[start:stop], quota, kept_rows, embeddings, clusters, threshold)
    return decisions


def _fill(
    rows: Rows,
    quota: int,
    kept_rows: dict[int, list[int]],
    embeddings: npt.NDArray[np.float32],
    clusters: npt.NDArray[np.integer] | None,
    threshold: float,
) -> Reasons:
    """Fill the quota of one stratum; its kept rows are added to `kept_rows`, those of every cluster so far."""
    decisions = np.full(len(rows), OUTRANKED, np.uint8)
    start, missing = 0, quota
    while missing and start < len(rows):
        # About as many rows as are still missing: those after the one that fills the quota are compared for nothing.
        part = rows[start : start + min(max(missing, 64), _WALK)]
        labels = np.zeros(len(part), np.int64) if clusters is None else clusters[part]
        passed = np.zeros(len(part), np.bool_)
        for label, places in _by_label(labels):
            passed[places] = _near(part[places], kept_rows.get(label, []), embeddings, threshold)
        end = int(np.searchsorted(np.cumsum(~passed), missing)) + 1  # just past the row that fills the quota
        part, passed, labels = part[:end], passed[:end], labels[:end]
        decisions[start : start + len(part)] = np.where(passed, NEAR_DUPLICATE, KEPT)
        _remember(kept_rows, part[~passed], labels[~passed])
        missing -= int(np.count_nonzero(~passed))
        start += len(part)
    if missing:
        back = np.flatnonzero(decisions == NEAR_DUPLICATE)[:missing]
        decisions[back] = KEPT
        _remember(kept_rows, rows[back], np.zeros(len(back), np.int64) if clusters is None else clusters[rows[back]])
    return decisions


def _near(rows: Rows, kept: list[int], embeddings: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """Mark the rows of one cluster, in order, that are near a kept row or near an earlier row that is not marked."""
    vectors = embeddings[rows]
    near = np.zeros(len(rows), np.bool_)
    embedded = np.flatnonzero(np.isfinite(vectors[:, 0]))
    vectors = vectors[embedded]
    passed = near[embedded]
    for start in range(0, len(kept), _WALK):
        others = embeddings[np.array(kept[start : start + _WALK])]
        others = others[np.isfinite(others[:, 0])]
        passed |= (vectors @ others.T >= threshold - _ROUNDING).any(axis=1)
    # Upper triangle: row i marks only later rows, and only if it is not marked itself, as it would then not be kept.
    among = np.triu(vectors @ vectors.T >= threshold - _ROUNDING, 1)
    for index in np.flatnonzero(among.any(axis=1)):
        if not passed[index]:
            passed |= among[index]
    near[embedded] = passed
    return near


def _by_label(labels: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield every label, ascending, and the places where it stands, ascending."""
    by = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[by])) + 1
    for places in np.split(by, ends):
        yield int(labels[places[0]]), places


def _remember(kept_rows: dict[int, list[int]], rows: Rows, labels: npt.NDArray[np.integer]) -> None:
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        kept_rows.setdefault(label, []).append(row)
