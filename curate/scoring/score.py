"""Scores batches of tokens: confidence and log-probability of every record at every exit.

Shape letters as in `exits` and `confidence`: B batch, T sequence, N response tokens of the batch, E exits, R records.
"""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import Cache

from curate.scoring.confidence import mean_per_record, token_log_probs
from curate.scoring.exits import exit_hidden, replayed_head
from curate.scoring.parts import DecoderParts
from curate.types import SCORED, STATUSES, BatchScores, IntArray, Status, TokenStore

logger = logging.getLogger(__name__)

_STATUS = {name: code for code, name in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded batch of records, as the model is given it.

    rows          int64 [B], the rows of the token store that the records come from
    input_ids_BT  int64, padded on the right with zeros; without the prefix, where a prefix cache stands for it
    keep_BT       bool, positions that predict a scored token
    targets_N     int64, those scored tokens, record by record
    counts_B      int64, scored tokens of each record; they sum to N
    """

    rows: IntArray
    input_ids_BT: Tensor
    keep_BT: Tensor
    targets_N: Tensor
    counts_B: IntArray


# Takes a batch, returns the log-probability of its targets in each of K subnets (exits, masks, rates): float32 [K, N].
Forward = Callable[[Batch], Tensor]


def collate(store: TokenStore, rows: IntArray, *, skip: int = 0) -> Batch:
    """Pad the tokens of `rows` into one batch, without the first `skip` of each row.

    Every row must have at least one scored token.
    """
    # The last scored token is only a target: the model need not see it, nor anything after it.
    needed, counts = store.rows["needed"][rows] - skip, store.rows["scored"][rows].astype(np.int64)
    input_ids = np.zeros((len(rows), int(needed.max())), np.int64)
    keep = np.zeros(input_ids.shape, bool)
    targets = []
    for i, row in enumerate(rows):
        span, n = store.span(int(row)), int(needed[i])
        span = slice(span.start + skip, span.stop)
        ids, scored = store.input_ids[span], store.marks[span] == SCORED
        input_ids[i, :n] = ids[:n]
        keep[i, :n] = scored[1 : n + 1]  # position t predicts token t + 1
        targets.append(ids[scored])
    flat = np.concatenate(targets).astype(np.int64)
    return Batch(rows, torch.from_numpy(input_ids), torch.from_numpy(keep), torch.from_numpy(flat), counts)


@dataclass(frozen=True, slots=True)
class ScoringModel:
    """A model and its scoring settings, the same for every batch.

    parts      the model, taken apart (`parts.find_parts`) and checked (`selftest.confirm`)
    layers     the exits: layer numbers, from 1
    head_rows  how many positions go through the LM head at once
    """

    parts: DecoderParts
    layers: tuple[int, ...]
    head_rows: int


@torch.inference_mode()
def exit_log_probs(scorer: ScoringModel, batch: Batch, prefix_cache: Cache | None = None) -> Tensor:
    """Compute the log-probability (nats) of every target of the batch at every exit: float32 [E, N].

    The decoder runs once, after `prefix_cache` where there is one. Logits exist for `head_rows` positions at a time,
    never for the whole batch.
    """
    device = scorer.parts.device
    targets_N = batch.targets_N.to(device)
    hidden_E = exit_hidden(scorer.parts, batch.input_ids_BT, batch.keep_BT, scorer.layers, prefix_cache)
    out_EN = torch.empty((len(scorer.layers), len(targets_N)), dtype=torch.float32, device=device)
    num_chunks = -(-len(targets_N) // scorer.head_rows)
    # Chunks of equal size, not full ones and a small rest: a small matrix product runs at a low rate.
    cuts = [len(targets_N) * i // num_chunks for i in range(num_chunks + 1)]
    with replayed_head(scorer.parts) as head:
        for out_N, hidden_NH in zip(out_EN, hidden_E, strict=True):
            for chunk in itertools.starmap(slice, itertools.pairwise(cuts)):
                logits_NV = head(hidden_NH[chunk])
                out_N[chunk] = token_log_probs(logits_NV, targets_N[chunk].to(logits_NV.device))
    return out_EN


def score_batch(
    scorer: ScoringModel, store: TokenStore, rows: IntArray, prefix_cache: Cache | None = None
) -> BatchScores:
    """Score the records of one batch at every exit.

    Args:
        scorer: the model and its exits.
        store: the tokens.
        rows: int64 [R], the records of the batch.
        prefix_cache: KV cache of the prefix that all these records begin with; None if they share none.

    Out of memory and numbers that are not finite are handled as in `score_records`.
    """

    def forward(batch: Batch) -> Tensor:
        return exit_log_probs(scorer, batch, prefix_cache)

    skip = prefix_cache.get_seq_length() if prefix_cache is not None else 0
    return score_records(forward, store, rows, num_columns=len(scorer.layers), skip=skip)


def score_records(
    forward: Forward, store: TokenStore, rows: IntArray, *, num_columns: int, skip: int = 0
) -> BatchScores:
    """Score the records of one batch in the K subnets that `forward` computes: confidence and log-probability.

    A batch that runs out of memory is halved and tried again. A single record that does not fit gets the status
    out_of_memory. A record whose confidence or log-probability is not finite gets the status non_finite. Both have NaN
    for scores: a score is never invented.

    Args:
        forward: returns the log-probability of every target of a batch in every subnet, float32 [K, N].
        store: the tokens.
        rows: int64 [R], the records of the batch.
        num_columns: K.
        skip: leading tokens of each record that are left out, because `forward` holds their KV cache.
    """
    batch = collate(store, rows, skip=skip)
    try:
        log_probs_KN = forward(batch).cpu().numpy()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    else:
        return _batch_scores(rows, log_probs_KN, batch.counts_B)
    gc.collect()  # not inside the handler: the traceback holds the tensors that did not fit
    torch.cuda.empty_cache()
    if len(rows) == 1:
        return _unscored(rows, num_columns, "out_of_memory")
    longest = int(store.rows["needed"][rows].max())
    logger.debug("out of memory on %d records of up to %d tokens; the batch is halved", len(rows), longest)
    half = -(-len(rows) // 2)
    halves = [
        score_records(forward, store, part, num_columns=num_columns, skip=skip) for part in (rows[:half], rows[half:])
    ]
    return join_scores(halves, split=True)


def join_scores(parts: Sequence[BatchScores], *, split: bool | None = None) -> BatchScores:
    """Join the scores of several batches into one, in the order given.

    `split` says whether a batch ran out of memory; None takes it from the parts.
    """
    return BatchScores(
        np.concatenate([p.rows for p in parts]),
        np.concatenate([p.status for p in parts]),
        np.concatenate([p.confidence for p in parts]),
        np.concatenate([p.log_prob for p in parts]),
        any(p.split for p in parts) if split is None else split,
    )


def join_subnets(parts: Sequence[BatchScores]) -> BatchScores:
    """Join the scores of the same records in several subnets: the columns stand side by side.

    A record that one subnet could not score has no score in any: it takes the first such status and NaN everywhere.
    """
    rows, status = parts[0].rows, parts[0].status.copy()
    for part in parts[1:]:
        assert np.array_equal(part.rows, rows), "the same records in the same order"
        status = np.where(status == _STATUS["scored"], part.status, status)
    confidence = np.concatenate([part.confidence for part in parts], axis=1)
    log_prob = np.concatenate([part.log_prob for part in parts], axis=1)
    confidence[status != _STATUS["scored"]] = log_prob[status != _STATUS["scored"]] = np.nan
    return BatchScores(rows, status, confidence, log_prob, any(part.split for part in parts))


def full_model(scorer: ScoringModel) -> ScoringModel:
    """Return the same scorer with one exit, the last layer: that is the full model."""
    return replace(scorer, layers=(scorer.parts.num_layers,))


def _batch_scores(rows: IntArray, log_probs_EN: npt.NDArray[np.float32], counts: IntArray) -> BatchScores:
    """Average token log-probabilities over each record; a record with a non-finite number gets its status and NaN."""
    confidence, log_prob = (a.astype(np.float32) for a in mean_per_record(log_probs_EN, counts))
    finite = np.isfinite(confidence).all(axis=1) & np.isfinite(log_prob).all(axis=1)
    confidence[~finite] = log_prob[~finite] = np.nan
    status = np.where(finite, _STATUS["scored"], _STATUS["non_finite"]).astype(np.uint8)
    return BatchScores(rows, status, confidence, log_prob)


def _unscored(rows: IntArray, num_exits: int, status: Status) -> BatchScores:
    """Return scores that are NaN throughout, with this status."""
    nothing = np.full((len(rows), num_exits), np.nan, np.float32)
    return BatchScores(rows, np.full(len(rows), _STATUS[status], np.uint8), nothing, nothing.copy(), split=True)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch or Python means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The allocators of the CPU, of Apple's GPUs and of cuBLAS raise a plain RuntimeError: only its text tells.
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return any(word in str(error) for word in words)
