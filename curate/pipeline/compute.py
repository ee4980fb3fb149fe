"""How the batches of a plan are computed: prefixes once, and batches of a size that the device can hold."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace

from transformers import Cache

from curate.config import Recipe
from curate.models.device import resolve_device
from curate.scoring.batches import BatchPlan, plan_batches_of
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.score import ScoringModel, out_of_memory, score_batch
from curate.scoring.selftest import prefix_check
from curate.types import BatchScores, TokenStore

logger = logging.getLogger(__name__)

LoadModel = Callable[[], ScoringModel]


def batch_scores(load: LoadModel, store: TokenStore, plan: BatchPlan) -> Callable[[int], BatchScores]:
    """Return a function from the number of a batch to its scores; the prefix of a batch's records is computed once."""

    @functools.lru_cache(maxsize=1)  # batches come prefix by prefix
    def prefix_cache_of(prefix_id: int) -> Cache | None:
        try:
            return compute_prefix_cache(load().parts, plan.prefixes[prefix_id])
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None  # records are then computed whole, in parts if need be

    def scores_of(batch: int) -> BatchScores:
        prefix_id = int(plan.prefix_ids[batch])
        prefix_cache = prefix_cache_of(prefix_id) if prefix_id >= 0 else None
        scores = score_batch(load(), store, plan.rows_of_batch(batch), prefix_cache)
        return replace(scores, split=scores.split or (prefix_id >= 0 and prefix_cache is None))

    return scores_of


def may_reuse_prefixes(load: LoadModel, store: TokenStore, tokens_per_batch: int) -> bool:
    """Say whether records share prefixes, and the model can go on from a prefix that was computed once.

    Decided once for all processes and calls: computed otherwise, the last bits would be others.
    """
    if not plan_batches_of(store, tokens_per_batch, reuse_prefixes=True).prefixes:
        return False
    check = prefix_check(load().parts)
    if not check.passed:
        logger.info("shared prefixes are computed for every record: the model does not go on from them as it should")
    return check.passed


def fitting_tokens_per_batch(load: LoadModel, store: TokenStore, tokens_per_batch: int, *, reuse_prefixes: bool) -> int:
    """Return what score.tokens_per_batch=auto is on this device: halved until the heaviest batch fits its memory.

    A CPU's memory is not tried out: there the system ends the process rather than refuse.
    """
    while resolve_device().type != "cpu":
        plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
        if not len(plan.costs):
            break
        scores = batch_scores(load, store, plan)(plan.heaviest)
        if len(scores.rows) == 1 or not scores.split:
            break
        logger.info("score.tokens_per_batch=auto: %d tokens do not fit into memory; trying half", tokens_per_batch)
        tokens_per_batch //= 2
    return tokens_per_batch


def settled_tokens_per_batch(recipe: Recipe) -> int:
    """Return score.tokens_per_batch of a settled recipe."""
    assert isinstance(recipe.score.tokens_per_batch, int)
    return recipe.score.tokens_per_batch
