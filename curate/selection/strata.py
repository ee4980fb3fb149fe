"""Strata: divides the pool into parts; each gets a quota and is filled separately."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from curate.selection.orders import Order, bounds, ordered_rows
from curate.types import IntArray

Integers = npt.NDArray[np.integer]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """A partition of the eligible rows; N rows, S strata.

    labels   int32 [N], the stratum of every eligible row; -1 for the others
    sizes    int64 [S], rows of every stratum
    parents  int32 [S], ascending: the group that each stratum belongs to; 0 where there are no groups
    """

    labels: Labels
    sizes: IntArray
    parents: Labels


def strata(
    eligible: npt.NDArray[np.bool_], *, clusters: Integers | None = None, groups: Integers | None = None
) -> Strata:
    """Divide the eligible rows: one stratum, one per cluster, one per group, or one per cluster inside every group.

    With groups and clusters, a stratum is a pair of both that occurs, sorted by group, then by cluster.

    Args:
        eligible: bool [N].
        clusters: int [N], not negative where eligible.
        groups: int [N], not negative where eligible.

    Row 2 is not eligible, so cluster 0 has one row and cluster 1 has two:

    >>> parts = strata(np.array([True, True, False, True]), clusters=np.array([1, 0, 0, 1]))
    >>> parts.labels.tolist(), parts.sizes.tolist()
    ([1, 0, -1, 1], [1, 2])
    """
    if clusters is not None and groups is not None:
        pairs = groups[eligible].astype(np.int64) * (int(clusters.max(initial=0)) + 1) + clusters[eligible]
        # Only pairs that occur: with many groups and clusters, all pairs would be far more than there are rows.
        values, codes = np.unique(pairs, return_inverse=True)
        labels = np.full(len(eligible), -1, np.int32)
        labels[eligible] = codes
        parents = values // (int(clusters.max(initial=0)) + 1)
        return Strata(labels, _sizes(labels, len(values)), parents.astype(np.int32))
    source = groups if groups is not None else clusters
    if source is None:
        source = np.zeros(len(eligible), np.int32)
    labels = np.where(eligible, source, -1).astype(np.int32, copy=False)
    sizes = _sizes(labels, int(labels.max(initial=0)) + 1)
    parents = np.arange(len(sizes)) if groups is not None else np.zeros(len(sizes))
    return Strata(labels, sizes, parents.astype(np.int32))


def flexrand_strata(
    eligible: npt.NDArray[np.bool_], order: Order, *, gamma: float, groups: Integers | None = None
) -> Strata:
    """Divide the eligible rows into FlexRand's easy part (stratum 0) and hard part (1); of group g, 2g and 2g + 1.

    The first `easy_size` rows by the order are easy, the others hard.

    Args:
        eligible: bool [N].
        order: easiest first.
        gamma: the fraction that is easy, in (0, 1).
        groups: int [N], not negative where eligible.

    The two rows of lower complexity, 1 and 3, are easy:

    >>> flexrand_strata(np.ones(4, bool), Order(np.array([0.4, 0.1, 0.3, 0.2])), gamma=0.5).labels.tolist()
    [1, 0, 1, 0]
    """
    outer = strata(eligible, groups=groups)
    rows = ordered_rows(outer.labels, outer.sizes, order)
    easy = np.array([easy_size(size, gamma) for size in outer.sizes.tolist()])
    labels = np.where(eligible, 2 * outer.labels, np.int32(-1))
    for (start, stop), num_easy in zip(bounds(outer.sizes), easy.tolist(), strict=True):
        labels[rows[start + num_easy : stop]] += 1
    return Strata(labels, np.stack([easy, outer.sizes - easy], axis=1).ravel(), np.repeat(outer.parents, 2))


def easy_size(size: int, gamma: float) -> int:
    """Return how many of `size` rows are easy: size * gamma, rounded half up.

    >>> easy_size(10, 0.25), easy_size(50, 0.29)  # 2.5 and 14.5
    (3, 15)
    """
    # str(gamma) is the decimal that the person wrote; as floats, 50 * 0.29 is a little less than 14.5.
    return math.floor(size * Fraction(str(gamma)) + Fraction(1, 2))


def _sizes(labels: Labels, count: int) -> IntArray:
    return np.bincount(labels + 1, minlength=count + 1)[1:]  # the first is that of the rows in no stratum
