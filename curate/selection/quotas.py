"""Quotas: say how many records are kept, in all, of every group and of every stratum.

All of it is computed with integers and exact fractions, since one rounding error of floats would miss the budget by a
record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from curate.types import CurateError, IntArray, Quota


def keep_count(keep: int | str, rows_in: int) -> int:
    """Return the number of records to keep: a count as it is, a percentage of the input rows rounded half up.

    >>> keep_count("10%", 9_229), keep_count("10%", 5), keep_count(852, 9_229)  # 922.9, 0.5 and a count
    (923, 1, 852)

    Raises:
        CurateError: the percentage of so few rows is no record.
    """
    if isinstance(keep, int):
        return keep
    # Exact: in floats 0.29 * 50 is less than 14.5, and a record would be missing.
    count = _half_up(Fraction(keep.strip().removesuffix("%")) / 100 * rows_in)
    if count == 0:
        raise CurateError(f"select.keep={keep} of {rows_in} records is none; give a larger share or a count")
    return count


def cluster_quotas(sizes: IntArray, count: int, *, quota: Quota) -> IntArray:
    """Return how many of its eligible rows every cluster keeps: int64 [K], sum `count`, none above its size.

    Every non-empty cluster keeps one record, if `count` is large enough for that. The rest is distributed by
    `largest_remainder`, in proportion to the sizes or in equal parts. If `count` is smaller than the number of
    non-empty clusters, all of it is distributed that way.

    Args:
        sizes: int64 [K], eligible rows of every cluster.
        count: records to keep, at most the sum of `sizes`.
        quota: "proportional" to the sizes, or "equal": as even as the sizes allow, what is left over goes to the
            lower clusters.

    Seven records from clusters of 8, 0, 3 and 1 rows. Each non-empty cluster keeps one. The four that are left would
    be 2.67, 0, 1 and .33 in proportion: 2, 0, 1 and 0, and one more for the largest remainder, .67.

    >>> cluster_quotas(np.array([8, 0, 3, 1]), 7, quota="proportional").tolist()
    [4, 0, 2, 1]
    >>> cluster_quotas(np.array([8, 0, 3, 1]), 7, quota="equal").tolist()
    [3, 0, 3, 1]
    """
    # One each first: a small cluster would otherwise get none by proportion, and the kept set should cover all.
    filled = (sizes > 0).astype(np.int64)
    weights = filled if quota == "equal" else sizes
    first = filled if count >= filled.sum() else np.zeros_like(filled)
    return first + largest_remainder(weights, count - int(first.sum()), capacity=sizes - first)


def largest_remainder(weights: IntArray, count: int, *, capacity: IntArray) -> IntArray:
    """Distribute `count` seats in proportion to `weights`, none above its capacity: int64 [K].

    This is the largest remainder (Hamilton's) method. Entry k gets the whole part of count * weights[k] / sum(weights).
    The seats that are left go one each to the entries with the largest remainders, ties to the lower index. Seats above
    a capacity are distributed again in the same way, among the entries that have room.

    `count` must be at most the sum of the capacities, and an entry with capacity must have weight.

    Four seats in the proportion 5 : 3 : 2 are 2.0, 1.2 and 0.8; the whole parts are 2, 1 and 0, and the seat that is
    left goes to the remainder .8:

    >>> largest_remainder(np.array([5, 3, 2]), 4, capacity=np.array([9, 9, 9])).tolist()
    [2, 1, 1]
    >>> largest_remainder(np.array([5, 3, 2]), 4, capacity=np.array([1, 9, 9])).tolist()
    [1, 2, 1]
    """
    seats = np.zeros_like(capacity)
    while count > 0:  # every round is the last, or fills an entry that could not take its whole part
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


def group_quotas(
    sizes: IntArray, count: int, *, quota: Quota | Mapping[str, int | str], names: Sequence[str]
) -> IntArray:
    """Return how many of its eligible rows every group keeps: int64 [G], sum `count`, none above its size.

    "proportional" and "equal" are as in `cluster_quotas`. A mapping gives each group that it names a count, or a
    percentage of `count` ("40%"). Percentages are rounded together, by largest remainder: they add up to their rounded
    sum. The other groups keep what is left, in proportion to their eligible rows.

    Args:
        sizes: int64 [G], eligible rows of every group.
        count: records to keep, at most the sum of `sizes`.
        quota: how they are distributed.
        names: G values of the field that makes the groups; the mapping names groups by these.

    Raises:
        CurateError: the mapping names a value that no record has, or a quota is no percentage and no count; the quotas
            are more than `count` or than the eligible rows; the other groups have too few rows for what is left.

    Of ten records half are code and one is chat; maths keeps the other four:

    >>> sizes = np.array([50, 30, 20])
    >>> group_quotas(sizes, 10, quota={"code": "50%", "chat": 1}, names=["chat", "code", "maths"]).tolist()
    [1, 5, 4]
    """
    if isinstance(quota, str):
        return cluster_quotas(sizes, count, quota=quota)
    if unknown := [value for value in quota if value not in names]:
        raise CurateError(f"select.groups.quota: no record has the value {unknown[0]!r}; there are {_some(names)}")
    index = {name: code for code, name in enumerate(names)}
    seats, named = np.zeros_like(sizes), np.zeros(len(sizes), np.bool_)
    for value, asked in _asked(quota, count).items():
        code = index[value]
        seats[code], named[code] = asked, True
        if asked > sizes[code]:
            raise CurateError(
                f"select.groups.quota: {asked} records of {value!r} are asked for, but only {sizes[code]} are eligible"
            )
    # Groups that the mapping does not name share what is left; a named one keeps its count and nothing more.
    left, others = count - int(seats.sum()), np.where(named, 0, sizes)
    if left > others.sum():
        raise CurateError(
            f"select.groups.quota: the groups named keep {count - left} of {count} records, and the others have only "
            f"{others.sum()} that are eligible; raise the quotas or lower select.keep"
        )
    return seats + cluster_quotas(others, left, quota="proportional")


def _asked(quota: Mapping[str, int | str], count: int) -> dict[str, int]:
    """Return how many records every named group keeps; raise if they are more than `count`."""
    fractions = {value: _fraction(value, asked) for value, asked in quota.items() if str(asked).strip().endswith("%")}
    exact = {value: fraction * count for value, fraction in fractions.items()}
    seats = {value: math.floor(seat) for value, seat in exact.items()}
    by_remainder = sorted(exact, key=lambda value: seats[value] - exact[value])  # stable: ties to the earlier value
    for value in by_remainder[: _half_up(sum(exact.values(), Fraction())) - sum(seats.values())]:
        seats[value] += 1
    seats |= {value: _count(value, asked) for value, asked in quota.items() if value not in fractions}
    if sum(seats.values()) > count:
        raise CurateError(
            f"select.groups.quota: the quotas add up to {sum(seats.values())} records, but {count} are kept; "
            "lower them or raise select.keep"
        )
    return seats


def _fraction(value: str, asked: int | str) -> Fraction:
    """Return a percentage ("40%") as an exact fraction."""
    try:
        fraction = Fraction(str(asked).strip().removesuffix("%").strip()) / 100
    except (ValueError, ZeroDivisionError):  # ZeroDivisionError: Fraction also reads "1/0"
        fraction = Fraction(-1)
    if not 0 <= fraction <= 1:
        raise CurateError(f"select.groups.quota: expected 0% to 100% for {value!r}, got {asked!r}")
    return fraction


def _count(value: str, asked: int | str) -> int:
    if not str(asked).strip().isdecimal():
        raise CurateError(
            f'select.groups.quota: expected a share such as "40%" or a count for {value!r}, got {asked!r}'
        )
    return int(asked)


def flexrand_split(size: int, count: int, gamma: float) -> tuple[int, int]:
    """Return how many records FlexRand draws from the easy and from the hard part; their sum is `count`.

    FlexRand draws half of the records from each part, unless the smaller part is too small: then it keeps all of that
    part. The fraction gamma of the `size` records is easy. With eta = count / size, as fractions of all records:

        easy = min(gamma, eta / 2),       hard = eta - easy     if gamma <= 1/2
        hard = min(1 - gamma, eta / 2),   easy = eta - hard     else

    size * easy is rounded half up, and the hard part gives the rest. (The official code rounds both, and can miss the
    budget by one.) Neither is more than its part holds (`curate.selection.strata.easy_size`).

    Args:
        size: eligible records of both parts.
        count: records to draw, at most `size`.
        gamma: the fraction of the records that is easy, in (0, 1).

    Source: arXiv 2402.05356, version 3, and its code.

    >>> flexrand_split(100, 10, 0.25)  # half from each part
    (5, 5)
    >>> flexrand_split(100, 90, 0.25)  # only 25 are easy
    (25, 65)
    >>> flexrand_split(100, 90, 0.75)  # only 25 are hard
    (65, 25)
    >>> flexrand_split(100, 9, 0.25)  # 4.5 is rounded up
    (5, 4)
    """
    easy_fraction = Fraction(str(gamma))  # the decimal that the person wrote, not the float nearest to it
    if 2 * easy_fraction <= 1:
        easy = _half_up(min(easy_fraction * size, Fraction(count, 2)))
    else:
        easy = _half_up(count - min((1 - easy_fraction) * size, Fraction(count, 2)))
    return easy, count - easy


def _half_up(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
