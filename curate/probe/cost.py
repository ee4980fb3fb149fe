"""Fits the time that a batch takes to a few timed batches.

    seconds = fixed + per_token * padded tokens + per_answer * response tokens * exits + per_pair * query-key pairs

Query-key pairs stand for attention, whose work grows with the square of the length.

Shape letters: B batches, F = 4 loads of a batch, in the order of the formula; the first is always 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from curate.types import FloatArray


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds per batch, per padded token, per answer (a response token at an exit) and per query-key pair."""

    fixed: float
    per_token: float
    per_answer: float
    per_pair: float

    def seconds(self, loads_BF: FloatArray) -> float:
        """Return the seconds that all these batches take together."""
        return float(loads_BF.sum(axis=0) @ np.array([self.fixed, self.per_token, self.per_answer, self.per_pair]))


def fit_cost(loads_BF: FloatArray, seconds_B: npt.NDArray[np.floating]) -> BatchCost:
    """Fit a cost to timed batches, by non-negative least squares of the relative error.

    The error is relative, so that short batches count as much as long ones. Factors are not negative, since noise could
    otherwise make more work cheaper. With fewer than four batches the fit is one of several that explain them.

    >>> loads = np.array([[1.0, 100, 50, 0], [1, 200, 50, 0], [1, 100, 200, 0], [1, 400, 400, 0]])
    >>> cost = fit_cost(loads, loads @ [0.5, 0.01, 0.02, 0])
    >>> round(cost.seconds(loads[:1]), 6)
    2.5
    """
    assert len(loads_BF) == len(seconds_B) > 0
    seconds_B = np.maximum(np.asarray(seconds_B, np.float64), 1e-9)  # a clock may stand still
    scale_F = np.maximum(loads_BF.max(axis=0), 1.0)  # tokens and pairs differ by a factor of a thousand
    weights_F, _ = nnls(loads_BF / scale_F / seconds_B[:, None], np.ones(len(seconds_B)))
    return BatchCost(*(weights_F / scale_F).tolist())
