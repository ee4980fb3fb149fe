"""The response loss of a language model, with or without an adapter, on references.

It is computed as scores are: the same tokens and mask, the same batches, the last exit only, logits at response
positions only. So an evaluation takes no more memory than scoring did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from transformers import Cache

from curate.evaluation.summary import Losses
from curate.scoring.batches import BatchPlan, plan_batches_of
from curate.scoring.confidence import head_rows
from curate.scoring.parts import find_parts
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.score import ScoringModel, out_of_memory, score_batch
from curate.scoring.selftest import confirm, prefix_check
from curate.types import TokenStore


def response_losses(
    model: Any, store: TokenStore, *, tokens_per_batch: int, on_progress: Callable[[int, int], None] | None = None
) -> Losses:
    """Return every record's mean response loss, in nats per token.

        loss = -1/T * sum_t log p(y_t | prompt, y_1 .. y_t-1)

    The T tokens are those marked SCORED: the response without the end token after it, so that the loss is the same
    quantity as the scores' log_prob and does not depend on whether a template writes an end token. Records whose
    status is not "scored" have no loss (NaN), nor have those that do not fit into memory or whose loss is not finite.

    Args:
        model: a causal LM, as loaded or with a LoRA adapter (PEFT); evaluated without dropout, then as it was.
        store: the tokens of the references.
        tokens_per_batch: padded tokens computed at once; a batch that does not fit into memory is halved.
        on_progress: called with (records done, records in all) after every batch.

    Raises:
        CurateError: the model cannot be taken apart, or fails the self-test of scoring.
    """
    num_records = len(store)
    losses = Losses(np.zeros(num_records, np.int32), np.full(num_records, np.nan))
    with evaluating(model):
        scorer = _last_exit(model)
        plan = _plan(scorer, store, tokens_per_batch)
        done = 0
        for rows, prefix_cache in _batches(scorer, plan):
            scores = score_batch(scorer, store, rows, prefix_cache)
            losses.loss[scores.rows] = -scores.log_prob[:, 0].astype(np.float64)
            done += len(rows)
            if on_progress:
                on_progress(done, len(plan.order))
    there = np.isfinite(losses.loss)
    losses.tokens[there] = store.rows["scored"][there]
    return losses


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """While open, the model is in evaluation mode; every part that was training does so again afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _last_exit(model: Any) -> ScoringModel:
    # Taken apart without its PEFT wrapper, the model keeps the adapter: LoRA layers stand inside the decoder.
    parts = find_parts(model)
    confirm(parts)
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    return ScoringModel(parts, (parts.num_layers,), head_rows(vocabulary, on_gpu=parts.device.type == "cuda"))


def _plan(scorer: ScoringModel, store: TokenStore, tokens_per_batch: int) -> BatchPlan:
    plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=True)
    if plan.prefixes and not prefix_check(scorer.parts).passed:
        return plan_batches_of(store, tokens_per_batch, reuse_prefixes=False)
    return plan


def _batches(scorer: ScoringModel, plan: BatchPlan) -> Iterator[tuple[np.ndarray[Any, Any], Cache | None]]:
    """Rows of each batch, and what the decoder keeps of the prefix that they share."""

    @lru_cache(maxsize=1)  # batches come prefix by prefix
    def cache_of(prefix_id: int) -> Cache | None:
        try:
            return compute_prefix_cache(scorer.parts, plan.prefixes[prefix_id]) if prefix_id >= 0 else None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None  # its records are computed whole

    for batch in range(len(plan.costs)):
        yield plan.rows_of_batch(batch), cache_of(int(plan.prefix_ids[batch]))
