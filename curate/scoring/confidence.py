"""The tensor maths of learning complexity: from logits to one number a record.

Shape letters: E exits, N response tokens of a batch, V vocabulary, R records of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.types import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor  # selections recompute complexity without loading torch


def token_log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Log-probability (nats) of each target token: `logits[n, y_n] - logsumexp(logits[n])`, float32 [N].

    The softmax runs in float32 whatever the logits' dtype: in bfloat16 it is off by up to 0.4 %. The fused kernel
    shifts by the largest logit before it subtracts, so an offset common to all logits costs no digits.
    """
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits_NV.float(), targets_N, reduction="none")


def mean_per_record(
    log_probs_EN: npt.NDArray[np.float32], tokens_per_record_R: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Confidence and log-probability of every record at every exit: float64 [R, E] each.

        confidence_k = 1/T * sum_t exp(log p_k(t))       in [0, 1]
        log_prob_k   = 1/T * sum_t log p_k(t)            nats per token

    Sums run in float64 over one record's tokens in order, so they do not depend on the other records of the batch.
    Every record has at least one token.

    >>> confidence, log_prob = mean_per_record(np.log(np.float32([[0.5, 0.25, 1.0]])), np.array([2, 1]))
    >>> confidence.round(6).tolist()
    [[0.375], [1.0]]
    """
    starts = np.concatenate(([0], np.cumsum(tokens_per_record_R)[:-1]))
    exact = log_probs_EN.astype(np.float64)
    log_prob = np.add.reduceat(exact, starts, axis=1) / tokens_per_record_R
    confidence = np.add.reduceat(np.exp(exact), starts, axis=1) / tokens_per_record_R
    return confidence.T, log_prob.T


def complexity(confidence_RE: npt.NDArray[np.floating]) -> FloatArray:
    """Learning complexity: 1 - mean confidence over the exits; in [0, 1], low = easy. float64 [R].

    Source: arXiv 2402.05356, with early exits as the subnets of different capacity.

    >>> complexity(np.array([[0.25, 0.75]])).tolist()
    [0.5]
    """
    mean: FloatArray = np.asarray(confidence_RE, dtype=np.float64).mean(axis=1)
    return 1.0 - mean


def perplexity(log_prob_R: npt.NDArray[np.floating]) -> FloatArray:
    """exp(-mean log-probability of the response) under the full model. float64 [R], infinite where it overflows."""
    with np.errstate(over="ignore"):
        return np.exp(-np.asarray(log_prob_R, dtype=np.float64))


def head_rows(vocabulary: int, *, on_gpu: bool) -> int:
    """How many positions go through the LM head at once, so that their float32 logits stay near a fixed size.

    The size bounds memory and keeps the log-sum-exp near the product that fed it; it follows from the vocabulary
    and the type of device alone, so the division into chunks is the same from run to run.
    """
    budget = (1 << 30) if on_gpu else (1 << 25)
    return max(16, budget // (4 * vocabulary))
