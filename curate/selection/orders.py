"""Orders: say which row of a stratum comes first. Ties always go to the lower row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.types import End, FloatArray, IntArray

Rows = npt.NDArray[np.int32]
Key = npt.NDArray[np.integer] | FloatArray

_BLOCK = 8_192  # rows gathered at once where a sum runs over all of them


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """An order of rows by a column.

    values  float64 or signed integers [N]; unsigned ones cannot be negated
    end     "lowest": the row with the lowest value comes first; "highest": the one with the highest
    """

    values: Key
    end: End = "lowest"


def keys(order: Order, rows: npt.NDArray[np.integer]) -> Key:
    """Return sort keys of some rows, so that the first by the order has the smallest: their values, or the negatives.

    >>> keys(Order(np.array([3, 1, 2]), "highest"), np.array([0, 1])).tolist()
    [-3, -1]
    """
    values: Key = order.values[rows]
    return values if order.end == "lowest" else -values


def random_key(num_rows: int, seed: int) -> Rows:
    """Return the place of every row in a uniform random order: int32 [N].

    The first n rows of any stratum by this order are a uniform draw without replacement. A smaller n draws a subset of
    a larger n. All rows are shuffled, also those that cannot be kept, so a change of the pool does not change the order
    of the other rows.

    >>> sorted(random_key(4, seed=0).tolist())
    [0, 1, 2, 3]
    """
    return np.random.default_rng(seed).permutation(np.arange(num_rows, dtype=np.int32))


def ordered_rows(labels: npt.NDArray[np.int32], sizes: IntArray, order: Order | None) -> Rows:
    """Return the rows of stratum 0 in order, then those of stratum 1, ...: int32 [M].

    Ties go to the lower row. Without an order the rows of a stratum ascend.

    Args:
        labels: int32 [N], the stratum of each row, negative where a row is in none.
        sizes: int64 [S], rows of every stratum, sum M.
        order: which row of a stratum comes first.

    Stratum 0 has rows 0 and 3, of which row 3 has the lower value; stratum 1 has row 1:

    >>> labels, sizes = np.array([0, 1, -1, 0], np.int32), np.array([2, 1])
    >>> ordered_rows(labels, sizes, Order(np.array([0.9, 0.5, 0.1, 0.2]))).tolist()
    [3, 0, 1]
    """
    rows = np.argsort(labels, kind="stable").astype(np.int32)  # half of what numpy's own indices take
    rows = rows[len(rows) - int(sizes.sum()) :]  # the negative labels came first
    if order is not None:  # one stratum at a time: sorted all at once, a million rows need twice the memory
        for start, stop in bounds(sizes):
            if stop - start > 1:
                part = rows[start:stop]
                rows[start:stop] = part[np.argsort(keys(order, part), kind="stable")]
    return rows


def bounds(sizes: IntArray) -> Iterator[tuple[int, int]]:
    """Yield where every stratum starts and stops in the ordered rows.

    >>> list(bounds(np.array([2, 0, 3])))
    [(0, 2), (2, 2), (2, 5)]
    """
    stops = np.cumsum(sizes)
    yield from zip((stops - sizes).tolist(), stops.tolist(), strict=True)


def farthest_first(embeddings: npt.NDArray[np.float32], rows: Rows, count: int) -> Rows:
    """Return `rows` reordered so that each of the first `count` is farthest from those before it: int32 [M].

    This is greedy k-center. The first centre is the row nearest to the mean direction. Every next centre is the row
    that is farthest from its nearest centre. The covering radius (Euclidean) is at most twice the best possible one.
    The rows after `count` follow, the farthest from their nearest centre first. Ties go to the lower row.

    Cost: count * M * D multiply-adds, and a pass over all vectors for every centre; about 40 s for 5,000 centres of
    50,000 rows of 384 dimensions on one core. The vectors are read from the memory map, and copied only if `rows` are
    less than half of the rows between the first and the last.

    Args:
        embeddings: float32 [N, D], unit rows.
        rows: int32 [M], ascending; each has a finite embedding.
        count: centres, at most M.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; for choosing training data
    Sener and Savarese, arXiv 1708.00489.

    Of four directions in the plane, 0, 37, 90 and 180 degrees, row 1 is nearest to the mean; row 3 is farthest from
    it, and row 2 is farthest from these two:

    >>> corners = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    >>> farthest_first(corners, np.arange(4, dtype=np.int32), 3).tolist()
    [1, 3, 2, 0]
    """
    if count == 0:
        return rows
    first, stop = int(rows[0]), int(rows[-1]) + 1
    is_dense = 2 * len(rows) >= stop - first
    points = embeddings[first:stop] if is_dense else embeddings[rows]
    places = rows - first if is_dense else np.arange(len(rows), dtype=np.int32)
    # Cosine to the nearest centre: on unit rows the smallest cosine is the largest distance. Infinite where a row is a
    # centre already, or none of `rows`, so that argmin never takes it.
    nearest = np.full(len(points), np.inf, np.float32)
    nearest[places] = -np.inf

    current = int(places[np.argmax(_cosines(points, _mean_direction(points, places))[places])])
    centres = np.empty(count, np.int64)
    for index in range(count):
        centres[index] = current
        np.fmax(nearest, _cosines(points, points[current]), out=nearest)
        nearest[current] = np.inf
        current = int(nearest.argmin())
    rest = places[np.isfinite(nearest[places])]
    rest = rest[np.argsort(nearest[rest], kind="stable")]
    chosen = np.concatenate([centres, rest])
    return (chosen + first).astype(np.int32) if is_dense else rows[chosen]


def _cosines(points: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the products of all points with a vector: their cosines, times the length of the vector."""
    # Not `points @ vector`: its last bits depend on where a row stands, and equal rows would not tie.
    cosines: npt.NDArray[np.float32] = np.einsum("md,d->m", points, vector)
    return cosines


def _mean_direction(points: npt.NDArray[np.float32], places: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    total = np.zeros(points.shape[1])
    for start in range(0, len(places), _BLOCK):
        # float64, block by block: no copy of all vectors, and the sum of a million rows keeps its digits.
        total += points[places[start : start + _BLOCK]].sum(axis=0, dtype=np.float64)
    return total.astype(np.float32)  # its length does not change which row is nearest
