"""Cuts a column of numbers into ranges of about equally many records, to be used as groups of a selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curate.types import FloatArray

Codes = npt.NDArray[np.int64]


def equal_bins(values: FloatArray, count: int) -> tuple[Codes, tuple[str, ...]]:
    """Cut values into ranges of about equal size: the range of every value, and the names of the ranges.

    The bounds are quantiles of the values. Equal values always fall into the same range, so there are fewer ranges than
    asked for where many values are equal.

    Args:
        values: float64 [N]; a value that is not finite is in no range.
        count: how many ranges to make.

    Returns:
        int64 [N], the range from 0, -1 for none; and a name for every range, "low to high", both ends included.

    >>> codes, names = equal_bins(np.array([3.0, 9.0, np.nan, 4.0, 30.0]), 2)
    >>> codes.tolist(), names
    ([0, 1, -1, 0, 1], ('3 to 4', '9 to 30'))
    """
    known = np.isfinite(values)
    codes = np.full(len(values), -1, np.int64)
    if not known.any():
        return codes, ()
    # "higher" makes every bound a value that occurs: the first value of the range above it.
    bounds = np.quantile(values[known], np.arange(1, count) / count, method="higher")
    raw = np.searchsorted(np.unique(bounds), values[known], side="right")
    occurring, codes[known] = np.unique(raw, return_inverse=True)
    ranges = [values[codes == code] for code in range(len(occurring))]
    return codes, tuple(f"{some.min():.6g} to {some.max():.6g}" for some in ranges)
