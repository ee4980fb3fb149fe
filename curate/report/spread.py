"""Computes how columns and counts of two selections differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.report.run_table import Codes
from curate.types import FloatArray

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a column over the records that A keeps, and over those that B keeps.

    name                      name of the column
    mean_a, mean_b            mean; None if no kept record has a value
    quantiles_a, quantiles_b  values at QUANTILES, interpolated linearly; empty if no kept record has a value
    """

    name: str
    mean_a: float | None
    mean_b: float | None
    quantiles_a: tuple[float, ...]
    quantiles_b: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """The numbers of records of one cluster or group that A keeps, and that B keeps."""

    name: str
    a: int
    b: int


def spread(name: str, values: FloatArray, a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Spread:
    """Return the distribution of a column over two sets of rows; values that are not finite are left out.

    >>> values = np.array([1.0, 3.0, 5.0, np.nan])
    >>> found = spread("x", values, np.array([True, True, False, True]), np.array([False, False, True, False]))
    >>> found.mean_a, found.mean_b, found.quantiles_a[2]
    (2.0, 5.0, 2.0)
    """
    mean_a, quantiles_a = _summary(values[a & np.isfinite(values)])
    mean_b, quantiles_b = _summary(values[b & np.isfinite(values)])
    return Spread(name, mean_a, mean_b, quantiles_a, quantiles_b)


def counts(
    codes: Codes, names: dict[int, str], a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]
) -> tuple[Count, ...]:
    """Return the counts of every code that A or B keeps, the largest difference first, ties in the order of codes.

    Args:
        codes: int32 [N], cluster or group of every row; rows with a negative code are left out.
        names: names of the codes; a code without one is called by its number.
        a: bool [N], the rows that A keeps.
        b: bool [N], the rows that B keeps.
    """
    size = int(codes.max(initial=-1)) + 1
    in_a, in_b = (np.bincount(codes[kept & (codes >= 0)], minlength=size) for kept in (a, b))
    # Stable, so that ties stay in the order of codes.
    order = np.argsort(-np.abs(in_a - in_b), kind="stable").tolist()
    return tuple(
        Count(names.get(code, str(code)), int(in_a[code]), int(in_b[code]))
        for code in order
        if in_a[code] or in_b[code]
    )


def _summary(values: FloatArray) -> tuple[float | None, tuple[float, ...]]:
    if not len(values):
        return None, ()
    return float(values.mean()), tuple(np.quantile(values, QUANTILES).tolist())
