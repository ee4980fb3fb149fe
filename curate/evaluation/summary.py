"""Averages the losses of a set of references in two ways: over records and over tokens. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.types import CurateError, FloatArray


@dataclass(frozen=True, slots=True)
class Losses:
    """The response loss of every record of a set.

    tokens  int32 [N], number of response tokens that the loss is a mean over; 0 where there is no loss
    loss    float64 [N], nats per token; NaN where there is none (empty or over-long response, a loss that is not
            finite, out of memory)
    """

    tokens: npt.NDArray[np.int32]
    loss: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ByRecord:
    """What a mean is a mean over: sum_r weight_r * value_r / sum_r weight_r, over the records that have a value.

    values   float64 [R], in the unit of the mean; NaN where there is none
    weights  float64 [R]
    """

    values: FloatArray
    weights: FloatArray


@dataclass(frozen=True, slots=True)
class LossSummary:
    """The two means of a set's losses; they are different numbers, and often rank models differently.

    records            number of records with a loss
    dropped            number of records without one
    tokens             response tokens of the records with a loss
    mean_over_records  nats per token; every record counts the same
    mean_over_tokens   nats per token; every token counts the same, so long responses count more
    """

    records: int
    dropped: int
    tokens: int
    mean_over_records: float
    mean_over_tokens: float


def summarize(losses: Losses) -> LossSummary:
    """Average the losses of a set over its records, and over its tokens.

        mean_over_records = 1/R * sum_r loss_r
        mean_over_tokens  = sum_r tokens_r * loss_r / sum_r tokens_r

    Records without a loss (NaN) are left out and counted as dropped.

    A response of one token with loss 2 and one of three tokens with loss 1: (2 + 1) / 2 and (2 + 3 * 1) / 4.

    >>> summarize(Losses(np.array([1, 3, 0], np.int32), np.array([2.0, 1.0, np.nan])))
    LossSummary(records=2, dropped=1, tokens=4, mean_over_records=1.5, mean_over_tokens=1.25)

    Raises:
        CurateError: no record has a loss.
    """
    # One reference without a loss would make both means NaN.
    there = np.isfinite(losses.loss)
    if not there.any():
        raise CurateError(
            f"expected at least one reference with a response that can be evaluated, got none in {len(there)} records: "
            "see prompt.max_length and the set's format"
        )
    tokens, loss = losses.tokens[there].astype(np.int64), losses.loss[there]
    total = int(tokens.sum())
    over_tokens = float(tokens @ loss) / total
    return LossSummary(len(loss), int((~there).sum()), total, float(loss.mean()), over_tokens)
