"""Computes the response loss of a language model, with or without an adapter, on references.

It is computed like a score with the last exit only: the same tokens, mask and batches, and logits at response positions
only. So an evaluation needs no more memory than scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
    """Compute every record's mean response loss, in nats per token.

        loss = -1/T * sum_t log p(y_t | prompt, y_1 .. y_t-1)

    The T tokens are those marked SCORED, without the end token after the response. So the loss is -log_prob of the
    scores, and does not depend on whether a template writes an end token. A record has no loss (NaN) if its status is
    not "scored", if it does not fit into memory, or if its loss is not finite.

    Args:
        model: a causal LM, as loaded or with a LoRA adapter (PEFT); it is used without dropout and left as it was.
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
    """Put the model into evaluation mode while the context is open; afterwards every module has its own mode again."""
    # Module by module: one that was in evaluation mode before must stay in it afterwards.
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _last_exit(model: Any) -> ScoringModel:
    """Take the model apart, check it, and return it with its last layer as the only exit."""
    # find_parts drops the PEFT wrapper, but the adapter stays in effect: LoRA layers stand inside the decoder.
    parts = find_parts(model)
    # An adapter changes numbers, not how the model is built. In 16 bits its numbers alone may exceed the tolerance of
    # the self-test, and a cell would be refused after hours of training; so the model is checked as it was scored.
    with getattr(model, "disable_adapter", nullcontext)():
        confirm(parts)
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    return ScoringModel(parts, (parts.num_layers,), head_rows(vocabulary, on_gpu=parts.device.type == "cuda"))


def _plan(scorer: ScoringModel, store: TokenStore, tokens_per_batch: int) -> BatchPlan:
    """Plan the batches, with shared prefixes where the model supports a prefix cache."""
    plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=True)
    if plan.prefixes and not prefix_check(scorer.parts).passed:
        return plan_batches_of(store, tokens_per_batch, reuse_prefixes=False)
    return plan


def _batches(scorer: ScoringModel, plan: BatchPlan) -> Iterator[tuple[np.ndarray[Any, Any], Cache | None]]:
    """Yield the rows of each batch, and the cache of the prefix that they share, None if there is none."""

    @lru_cache(maxsize=1)  # batches come prefix by prefix, so each prefix is computed once and one cache is held
    def cache_of(prefix_id: int) -> Cache | None:
        try:
            return compute_prefix_cache(scorer.parts, plan.prefixes[prefix_id]) if prefix_id >= 0 else None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            # Then score_batch skips no tokens: the records are computed whole.
            return None

    for batch in range(len(plan.costs)):
        yield plan.rows_of_batch(batch), cache_of(int(plan.prefix_ids[batch]))
