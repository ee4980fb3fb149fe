"""How two selections differ, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.report.run_table import Codes
from curate.types import FloatArray

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Spread:
    """A column over the kept records of A and of B.

    mean_a, mean_b            None where no kept record has a value
    quantiles_a, quantiles_b  at QUANTILES, linear between records; empty where there is no value
    """

    name: str
    mean_a: float | None
    mean_b: float | None
    quantiles_a: tuple[float, ...]
    quantiles_b: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many records of one cluster or group A and B keep."""

    name: str
    a: int
    b: int


def spread(name: str, values: FloatArray, a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Spread:
    """Return how a column differs between two sets of rows; values that are not finite are left out.

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
    """Return the counts of every code that A or B keeps, the largest difference first; ties by code.

    Args:
        codes: int32 [N] from 0; negative rows are left out.
        names: of the codes; one without a name is its number.
        a: bool [N], what A keeps.
        b: bool [N], what B keeps.
    """
    size = int(codes.max(initial=-1)) + 1
    in_a, in_b = (np.bincount(codes[kept & (codes >= 0)], minlength=size) for kept in (a, b))
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
