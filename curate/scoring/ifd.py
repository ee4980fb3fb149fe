"""Instruction-following difficulty (IFD): how much the prompt helps the model with the response.

    ifd = perplexity(response given prompt) / perplexity(response alone) = exp(log_prob_alone - log_prob)

`log_prob` is the full model's mean log-probability of the response after its prompt, nats per token. `log_prob_alone`
is that of the same token ids with only the tokenizer's own opening (BOS, or nothing) before them. A high IFD means that
the prompt helps little. From 1 on it does not help at all, and such records are usually left out.

`alone` cuts the responses out into a token store of their own, which is batched and scored like any other. With a small
model this is Superfiltering.

Sources: arXiv 2308.12032 (IFD), 2402.00530 (Superfiltering).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.types import CONTEXT, ROW, SCORED, STATUSES, BatchScores, FloatArray, IntArray, TokenStore

_SCORED = STATUSES.index("scored")
_BLOCK = 65_536  # records whose marks are looked at in one go


@dataclass(frozen=True, slots=True)
class ResponsesAlone:
    """Every response of every record as a sequence of its own.

    tokens  a row per sequence: records in order, the responses of a record in order; all are to be scored
    owners  int64 [S], the row of the record that each sequence comes from
    """

    tokens: TokenStore
    owners: IntArray


def alone(store: TokenStore, opening: IntArray) -> ResponsesAlone:
    """Cut every response (run of scored tokens) out of its record and put `opening` before it.

    Where `opening` is empty, nothing predicts a response's first token: it becomes context, and a response of one token
    gives no sequence. Memory: about five bytes a response token.

    Args:
        store: the records as they are scored.
        opening: token ids that the tokenizer writes before a text (`Codec.opening`); may be empty.

    A record of five tokens with the responses (8, 9) and (6), and 1 as BOS, gives the sequences (1, 8, 9) and (1, 6):

    >>> ids, marks = np.array([7, 8, 9, 5, 6], np.int32), np.array([0, 1, 1, 0, 1], np.uint8)
    >>> rows = np.zeros(1, ROW)
    >>> rows["end"] = 5
    >>> cut = alone(TokenStore(ids, marks, rows), np.array([1]))
    >>> cut.tokens.input_ids.tolist(), cut.tokens.rows["end"].tolist(), cut.owners.tolist()
    ([1, 8, 9, 1, 6], [3, 5], [0, 0])
    """
    least, ends = 1 if len(opening) else 2, np.ascontiguousarray(store.rows["end"])
    ids, marks, rows, owners = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)], [np.zeros(0, ROW)], [np.zeros(0, int)]
    for starts, lengths in _responses(store.marks, ends):
        starts, lengths = starts[lengths >= least], lengths[lengths >= least]
        owner = np.searchsorted(ends, starts, side="right")
        total = lengths + len(opening)
        # Each token's place in its sequence, from 0: for sequences of 3 and 2 tokens it is 0 1 2 0 1.
        place = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
        opens = place < len(opening)
        block = np.empty(len(place), np.int32)
        block[opens] = np.tile(opening, len(starts))
        block[~opens] = store.input_ids[(np.repeat(starts - len(opening), total) + place)[~opens]]
        row = np.zeros(len(starts), ROW)
        row["end"] = np.cumsum(total)
        # The last token is only a target; without an opening the first is only context.
        row["needed"], row["scored"] = total - 1, lengths - (least - 1)
        row["status"], row["id"] = _SCORED, store.rows["id"][owner]
        ids.append(block)
        marks.append(np.where(opens | (place == 0), CONTEXT, SCORED).astype(np.uint8))
        rows.append(row)
        owners.append(owner)
    joined = np.concatenate(rows)
    joined["end"] = np.cumsum(joined["needed"].astype(np.int64) + 1)
    tokens = TokenStore(np.concatenate(ids), np.concatenate(marks), joined)
    return ResponsesAlone(tokens, np.concatenate(owners))


def pool_alone(responses: ResponsesAlone, scores: Iterable[BatchScores], num_rows: int) -> FloatArray:
    """Pool the scores of a record's sequences into its `log_prob_alone`: float64 [N], nats per token.

        log_prob_alone = (sum of log p over all its tokens that have a prediction) / (number of those tokens)

    So every token weighs the same, and a long response counts more than a short one. The last column of `scores`, the
    full model, is used. A record is NaN if it has no such tokens, or if one of its sequences is missing or not scored.
    The sums run in the order of the sequences, so batches and chunks change nothing.

    A record with responses of 1 and 3 tokens, at -4 and -2 nats per token, has (-4 + 3 * -2) / 4 nats per token:

    >>> rows = np.zeros(2, ROW)
    >>> rows["scored"] = [1, 3]
    >>> store = TokenStore(np.zeros(0, np.int32), np.zeros(0, np.uint8), rows)
    >>> means = np.array([[-4.0], [-2.0]], np.float32)
    >>> scores = BatchScores(np.array([0, 1]), np.zeros(2, np.uint8), np.exp(means), means)
    >>> pool_alone(ResponsesAlone(store, np.array([0, 0])), [scores], 1).tolist()
    [-2.5]
    """
    counts = responses.tokens.rows["scored"].astype(np.float64)
    # A stored score is a mean over its sequence; times its number of tokens it is the sum again.
    sums = np.full(len(counts), np.nan)
    for part in scores:
        sums[part.rows] = part.log_prob[:, -1] * counts[part.rows]  # NaN where the status is not "scored"
    total = np.bincount(responses.owners, sums, num_rows)
    num_tokens = np.bincount(responses.owners, counts, num_rows)
    log_prob_alone: FloatArray = np.divide(total, num_tokens, out=np.full(num_rows, np.nan), where=num_tokens > 0)
    return log_prob_alone


def ifd(log_prob_alone: npt.NDArray[np.floating], log_prob: npt.NDArray[np.floating]) -> FloatArray:
    """Compute instruction-following difficulty, `exp(log_prob_alone - log_prob)`: high = the prompt helps little.

    float64 [N], positive, usually below 1. NaN where either argument is.

    The prompt makes the first response more likely (-3 to -2 nats per token) and leaves the second as it was:

    >>> ifd(np.array([-3.0, -2.0]), np.array([-2.0, -2.0])).round(4).tolist()
    [0.3679, 1.0]
    """
    with np.errstate(over="ignore"):
        ratio: FloatArray = np.exp(np.asarray(log_prob_alone, np.float64) - np.asarray(log_prob, np.float64))
    return ratio


def _responses(marks: npt.NDArray[np.uint8], ends: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield where every run of scored tokens starts, and its length, for a block of records at a time."""
    for first in range(0, len(ends), _BLOCK):
        high = int(ends[first : first + _BLOCK][-1])
        low = int(ends[first - 1]) if first else 0
        scored = np.zeros(high - low + 2, bool)  # False on either side
        scored[1:-1] = marks[low:high] == SCORED
        # A record's first token is never scored (nothing predicts it), so no run goes on into the next record.
        starts = np.flatnonzero(scored[1:] & ~scored[:-1])
        stops = np.flatnonzero(~scored[1:] & scored[:-1])
        yield starts + low, stops - starts
