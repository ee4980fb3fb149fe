"""How many records are kept, in all and of every cluster."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np

from curate.types import CurateError, IntArray

Quota = Literal["proportional", "equal"]


def keep_count(keep: int | str, rows_in: int) -> int:
    """The number of records to keep: a count as it is, a share as floor(share * rows_in + 1/2), without rounding error.

    >>> keep_count("10%", 9_229), keep_count("10%", 5), keep_count(852, 9_229)
    (923, 1, 852)

    Raises:
        CurateError: the share of so few rows is no record.
    """
    if isinstance(keep, int):
        return keep
    count = math.floor(Fraction(keep.strip().removesuffix("%")) / 100 * rows_in + Fraction(1, 2))
    if count == 0:
        raise CurateError(f"select.keep={keep} of {rows_in} records is none; give a larger share or a count")
    return count


def cluster_quotas(sizes: IntArray, count: int, *, quota: Quota) -> IntArray:
    """How many of its eligible rows every cluster keeps: int64 [K], sum `count`, none above its size.

    One for every non-empty cluster where `count` allows that, and the rest by largest remainder: in proportion to
    the sizes, or in equal parts. Where it does not, all of `count` goes by largest remainder.

    Args:
        sizes: int64 [K], eligible rows of every cluster.
        count: at most the sum of `sizes`.
        quota: "equal" is as even as the sizes allow; what is left over goes to the lower clusters.

    >>> cluster_quotas(np.array([8, 0, 3, 1]), 7, quota="proportional").tolist()
    [4, 0, 2, 1]
    >>> cluster_quotas(np.array([8, 0, 3, 1]), 7, quota="equal").tolist()
    [3, 0, 3, 1]
    """
    filled = (sizes > 0).astype(np.int64)
    weights = filled if quota == "equal" else sizes
    first = filled if count >= filled.sum() else np.zeros_like(filled)
    return first + largest_remainder(weights, count - int(first.sum()), capacity=sizes - first)


def largest_remainder(weights: IntArray, count: int, *, capacity: IntArray) -> IntArray:
    """`count` seats in proportion to `weights` (Hamilton's method), none above its capacity: int64 [K].

    Everyone gets the whole part of count * weight / sum(weights); the seats left over go one each to the largest
    remainders, ties to the lower index. Seats that a full one cannot take are shared out again in the same way among
    those with room. Integer arithmetic throughout. `count` is at most the sum of the capacities; where there is
    capacity, there is weight.

    >>> largest_remainder(np.array([5, 3, 2]), 4, capacity=np.array([9, 9, 9])).tolist()
    [2, 1, 1]
    """
    seats = np.zeros_like(capacity)
    while count > 0:
        whole, remainder = np.divmod(count * weights, weights.sum())
        given = np.minimum(whole, capacity - seats)
        seats += given
        count -= int(given.sum())
        with_room = np.flatnonzero(seats < capacity)
        next_ones = with_room[np.argsort(-remainder[with_room], kind="stable")][:count]
        seats[next_ones] += 1
        count -= len(next_ones)
        weights = np.where(seats < capacity, weights, 0)
    return seats
