"""The scorer of a run: the model loaded, taken apart, confirmed, and what size of batch its device can hold."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace

from transformers import Cache

from curate.config import Recipe
from curate.models.load import load_model, resolve_device, sharded_by_launcher
from curate.pipeline.settle import Resolved, with_tokens_per_batch
from curate.run.job import Job
from curate.scoring.batches import BatchPlan, plan_batches_of
from curate.scoring.confidence import head_rows
from curate.scoring.exits import exit_layers
from curate.scoring.parts import find_parts
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.score import ScoringModel, out_of_memory, score_batch
from curate.scoring.selftest import confirm, prefix_check
from curate.types import BatchScores, CurateError, TokenStore

logger = logging.getLogger(__name__)

LoadScorer = Callable[[Recipe], ScoringModel]


def scorer_once(job: Job) -> LoadScorer:
    """A function that loads the scorer of a resolved recipe when first called, and then gives the same one."""
    loaded: list[ScoringModel] = []

    def load(recipe: Recipe) -> ScoringModel:
        if not loaded:
            loaded.append(_load_scorer(job, recipe))
        return loaded[0]

    return load


def batch_scores(load: Callable[[], ScoringModel], store: TokenStore, plan: BatchPlan) -> Callable[[int], BatchScores]:
    """A function from the number of a batch to its scores; what a batch's records begin with is computed once."""

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


def may_reuse_prefixes(resolved: Resolved, store: TokenStore, load: LoadScorer) -> bool:
    """Whether there are prefixes that records share, and the model can go on from them.

    Decided once for all processes and calls: computed otherwise, the last bits would be others.
    """
    if not plan_batches_of(store, tokens_per_batch(resolved.recipe), reuse_prefixes=True).prefixes:
        return False
    check = prefix_check(load(resolved.recipe).parts)
    if not check.passed:
        logger.info("what records begin with is computed for each: the model does not go on from it as it should")
    return check.passed


def fitting(resolved: Resolved, store: TokenStore, load: LoadScorer, *, reuse_prefixes: bool) -> Resolved:
    """What score.tokens_per_batch=auto is on this device: halved until the heaviest batch fits into its memory.

    A CPU's memory is not tried out: there the system ends the process rather than refuse.
    """
    recipe = resolved.recipe
    while resolve_device().type != "cpu":
        budget = tokens_per_batch(resolved.recipe)
        plan = plan_batches_of(store, budget, reuse_prefixes=reuse_prefixes)
        if not len(plan.costs):
            break
        scores = batch_scores(lambda: load(recipe), store, plan)(plan.heaviest)
        if len(scores.rows) == 1 or not scores.split:
            break
        logger.info("score.tokens_per_batch=auto: %d tokens do not fit into memory; trying half", budget)
        resolved = with_tokens_per_batch(resolved, budget // 2)
    return resolved


def tokens_per_batch(recipe: Recipe) -> int:
    """The setting of a resolved recipe."""
    assert isinstance(recipe.score.tokens_per_batch, int)
    return recipe.score.tokens_per_batch


def _load_scorer(job: Job, recipe: Recipe) -> ScoringModel:
    if sharded_by_launcher():
        raise CurateError(
            "FSDP and DeepSpeed split a model to train it, not to score with it: score without them (with "
            "model.device_map=auto on one process if the model is large), then launch curate train with them"
        )
    settings = recipe.model
    with job.heartbeat.kept_up():
        model = load_model(
            settings.name,
            revision=settings.revision,
            dtype=settings.dtype,
            quantization=settings.quantization,
            device_map=settings.device_map,
            offload_folder=job.folder.work / "offload",
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )
        parts = find_parts(model)
        layers = exit_layers(recipe.score.exits, parts.num_layers)
        confirm(parts, layers)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = head_rows(vocabulary, on_gpu=parts.device.type == "cuda")
    return ScoringModel(parts, layers, rows)
