"""Quotas: how many records are kept, in all, of every group and of every stratum. Integers and fractions throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from curate.types import CurateError, IntArray, Quota


def keep_count(keep: int | str, rows_in: int) -> int:
    """Return the number of records to keep: a count as it is, a share as floor(share * rows_in + 1/2), exactly.

    >>> keep_count("10%", 9_229), keep_count("10%", 5), keep_count(852, 9_229)
    (923, 1, 852)

    Raises:
        CurateError: the share of so few rows is no record.
    """
    if isinstance(keep, int):
        return keep
    count = _half_up(Fraction(keep.strip().removesuffix("%")) / 100 * rows_in)
    if count == 0:
        raise CurateError(f"select.keep={keep} of {rows_in} records is none; give a larger share or a count")
    return count


def cluster_quotas(sizes: IntArray, count: int, *, quota: Quota) -> IntArray:
    """Return how many of its eligible rows every cluster keeps: int64 [K], sum `count`, none above its size.

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
    """Return `count` seats in proportion to `weights` (Hamilton's method), none above its capacity: int64 [K].

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


def group_quotas(
    sizes: IntArray, count: int, *, quota: Quota | Mapping[str, int | str], names: Sequence[str]
) -> IntArray:
    """Return how many of its eligible rows every group keeps: int64 [G], sum `count`, none above its size.

    "proportional" and "equal" are those of `cluster_quotas`. A mapping gives its groups exactly what it says: a count,
    or a share of `count` ("40%"); shares are rounded together, by largest remainder, so that their sum is the rounded
    sum of the shares. What is left goes to the groups that it does not name, in proportion to their eligible rows.

    Args:
        sizes: int64 [G], eligible rows of every group.
        count: records to keep, at most the sum of `sizes`.
        quota: how they are shared out.
        names: G values of the field, as the mapping calls them.

    Raises:
        CurateError: a value that no record has; quotas above `count` or above what is there; too few records in
            the groups that are not named for what is left; no share and no count.

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
    left, others = count - int(seats.sum()), np.where(named, 0, sizes)
    if left > others.sum():
        raise CurateError(
            f"select.groups.quota: the groups named keep {count - left} of {count} records, and the others have only "
            f"{others.sum()} that are eligible; raise the quotas or lower select.keep"
        )
    return seats + cluster_quotas(others, left, quota="proportional")


def _asked(quota: Mapping[str, int | str], count: int) -> dict[str, int]:
    """Return the records that every named group is given; refuse more than `count`."""
    shares = {value: _share(value, asked) for value, asked in quota.items() if str(asked).strip().endswith("%")}
    exact = {value: share * count for value, share in shares.items()}
    seats = {value: math.floor(seat) for value, seat in exact.items()}
    by_remainder = sorted(exact, key=lambda value: seats[value] - exact[value])  # stable: ties to the earlier value
    for value in by_remainder[: _half_up(sum(exact.values(), Fraction())) - sum(seats.values())]:
        seats[value] += 1
    seats |= {value: _count(value, asked) for value, asked in quota.items() if value not in shares}
    if sum(seats.values()) > count:
        raise CurateError(
            f"select.groups.quota: the quotas add up to {sum(seats.values())} records, but {count} are kept; "
            "lower them or raise select.keep"
        )
    return seats


def _share(value: str, asked: int | str) -> Fraction:
    try:
        share = Fraction(str(asked).strip().removesuffix("%").strip()) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise CurateError(f"select.groups.quota: expected 0% to 100% for {value!r}, got {asked!r}")
    return share


def _count(value: str, asked: int | str) -> int:
    if not str(asked).strip().isdecimal():
        raise CurateError(
            f'select.groups.quota: expected a share such as "40%" or a count for {value!r}, got {asked!r}'
        )
    return int(asked)


def flexrand_split(size: int, count: int, gamma: float) -> tuple[int, int]:
    """Return how many records FlexRand draws from the easy and from the hard part; their sum is `count`.

    With eta = count / size: if gamma <= 1/2, the easy fraction is e = min(gamma, eta / 2); else the hard fraction is
    h = min(1 - gamma, eta / 2) and e = eta - h. The easy part gives size * e, rounded half up, the hard part the rest:
    the official code rounds both and can miss the budget by one. Neither is more than its part holds (see
    `curate.selection.strata.easy_size`).

    Source: arXiv 2402.05356, version 3, and its code.

    >>> flexrand_split(100, 10, 0.25), flexrand_split(100, 90, 0.25), flexrand_split(100, 90, 0.75)
    ((5, 5), (25, 65), (65, 25))
    """
    easy_fraction = Fraction(str(gamma))
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
