"""The maths of learning complexity: from logits to one number a record.

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
    """Compute the log-probability (nats) of each target token: float32 [N].

        log_prob_n = logits[n, y_n] - logsumexp(logits[n])

    The softmax runs in float32 whatever the logits' dtype.
    """
    from torch.nn.functional import cross_entropy

    # float32: in bfloat16 a probability is off by up to 0.4 %. The fused kernel, not the formula above: it subtracts
    # the largest logit first, so an offset common to all logits costs no digits.
    return -cross_entropy(logits_NV.float(), targets_N, reduction="none")


def mean_per_record(
    log_probs_EN: npt.NDArray[np.float32], tokens_per_record_R: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Average over the tokens of every record: its confidence and log-probability at every exit, float64 [R, E] each.

        confidence_k = 1/T * sum_t exp(log p_k(t))       in [0, 1]
        log_prob_k   = 1/T * sum_t log p_k(t)            nats per token

    The tokens stand record by record: first those of record 0, then those of record 1, ... Every record must have at
    least one token. A record's result does not depend on the other records of the batch.

    Two records, of two tokens (probabilities .5 and .25) and of one token (1.0), at one exit:

    >>> confidence, log_prob = mean_per_record(np.log(np.float32([[0.5, 0.25, 1.0]])), np.array([2, 1]))
    >>> confidence.round(6).tolist()
    [[0.375], [1.0]]
    """
    starts = np.concatenate(([0], np.cumsum(tokens_per_record_R)[:-1]))
    exact = log_probs_EN.astype(np.float64)  # float64: a sum over thousands of tokens would lose digits in float32
    log_prob = np.add.reduceat(exact, starts, axis=1) / tokens_per_record_R
    confidence = np.add.reduceat(np.exp(exact), starts, axis=1) / tokens_per_record_R
    return confidence.T, log_prob.T


def complexity(confidence_RE: npt.NDArray[np.floating]) -> FloatArray:
    """Compute learning complexity, 1 - mean confidence over the exits: in [0, 1], low = easy. float64 [R].

    Source: arXiv 2402.05356. The paper averages over subnets of different capacity; early exits as the subnets are this
    project's own choice.

    An easy record, likely from the first exit on, and a hard one:

    >>> complexity(np.array([[0.5, 1.0], [0.0, 0.25]])).tolist()
    [0.25, 0.875]
    """
    mean: FloatArray = np.asarray(confidence_RE, dtype=np.float64).mean(axis=1)
    return 1.0 - mean


def perplexity(log_prob_R: npt.NDArray[np.floating]) -> FloatArray:
    """Compute exp(-mean log-probability of the response): float64 [R], infinite where it overflows.

    >>> perplexity(np.log([0.5, 0.125])).round(6).tolist()
    [2.0, 8.0]
    """
    with np.errstate(over="ignore"):
        return np.exp(-np.asarray(log_prob_R, dtype=np.float64))


def head_rows(vocabulary: int, *, on_gpu: bool) -> int:
    """Return how many positions go through the LM head at once: as many as fit a fixed size of float32 logits, or 16.

    It depends only on the vocabulary and the type of device, so chunks are the same from run to run.
    """
    # 1 GiB on a GPU bounds memory. 32 MiB on a CPU: the log-sum-exp finds the logits still in the cache.
    budget = (1 << 30) if on_gpu else (1 << 25)
    return max(16, budget // (4 * vocabulary))
