"""Computes the batches of a plan: a shared prefix once, and batches of a size that fits into memory."""

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
    """Return a function from the number of a batch to its scores.

    The prefix that the records of a batch share is computed once for all batches that share it.

    Args:
        load: loads the model, or returns the loaded one; called at the first batch, and once.
        store: the tokens.
        plan: the batches.
    """
    load = functools.cache(load)  # it says what it does, which a person need not read at every batch

    @functools.lru_cache(maxsize=1)  # one is enough: batches are sorted by prefix, and a KV cache is large
    def prefix_cache_of(prefix_id: int) -> Cache | None:
        try:
            return compute_prefix_cache(load().parts, plan.prefixes[prefix_id])
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None  # the records are then computed without a cache, each with its own prefix

    def scores_of(batch: int) -> BatchScores:
        prefix_id = int(plan.prefix_ids[batch])
        prefix_cache = prefix_cache_of(prefix_id) if prefix_id >= 0 else None
        scores = score_batch(load(), store, plan.rows_of_batch(batch), prefix_cache)
        # Without the planned cache the last bits may differ, as where a batch was split: the manifest says so.
        return replace(scores, split=scores.split or (prefix_id >= 0 and prefix_cache is None))

    return scores_of


def may_reuse_prefixes(load: LoadModel, store: TokenStore, tokens_per_batch: int) -> bool:
    """Say whether records share prefixes and the model computes the same from a cached prefix as from the whole record.

    The main process decides it once for a run: with and without a cache the last bits of a score differ.
    """
    if not plan_batches_of(store, tokens_per_batch, reuse_prefixes=True).prefixes:
        return False
    check = prefix_check(load().parts)
    if not check.passed:
        logger.info(
            "shared prefixes are computed for every record: from a cached prefix the model computes other numbers"
        )
    return check.passed


def fitting_tokens_per_batch(load: LoadModel, store: TokenStore, tokens_per_batch: int, *, reuse_prefixes: bool) -> int:
    """Return the number of tokens of a batch that fits into the memory of this device: `tokens_per_batch`, or less.

    On a GPU it is halved until the heaviest batch of the plan fits.
    """
    # Not tried on a CPU: where memory runs out, Linux kills the process instead of raising an error.
    while resolve_device().type != "cpu":
        plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
        if not len(plan.costs):
            break
        scores = batch_scores(load, store, plan)(plan.heaviest)
        if len(scores.rows) == 1 or not scores.split:  # a single record cannot be split; it gets a status instead
            break
        logger.info("score.tokens_per_batch=auto: %d tokens do not fit into memory; trying half", tokens_per_batch)
        tokens_per_batch //= 2
    return tokens_per_batch


def settled_tokens_per_batch(recipe: Recipe) -> int:
    """Return score.tokens_per_batch of a settled recipe, in which it is a number."""
    assert isinstance(recipe.score.tokens_per_batch, int)
    return recipe.score.tokens_per_batch
