"""The scorer of a run: the model loaded, taken apart, confirmed, and what size of batch its device can hold."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from transformers import Cache

from curate.config import Recipe
from curate.data.store import open_tokens
from curate.models import load_model, resolve_device, sharded_by_launcher
from curate.pipeline.job import Job
from curate.pipeline.resolve import Resolved, with_tokens_per_batch
from curate.scoring.batching import BatchPlan, plan_table
from curate.scoring.confidence import head_rows
from curate.scoring.exits import exit_layers, find_parts
from curate.scoring.score import Scorer, score_batch
from curate.scoring.selftest import confirm, sharing_check
from curate.scoring.sharing import states_of
from curate.types import BatchScores, CurateError, TokenTable

logger = logging.getLogger(__name__)

LoadScorer = Callable[[Recipe], Scorer]


def scorer_once(job: Job) -> LoadScorer:
    """A function that loads the scorer of a resolved recipe when first called, and then gives the same one."""
    loaded: list[Scorer] = []

    def load(recipe: Recipe) -> Scorer:
        if not loaded:
            loaded.append(_load_scorer(job, recipe))
        return loaded[0]

    return load


def batch_scores(scorer: Callable[[], Scorer], table: TokenTable, plan: BatchPlan) -> Callable[[int], BatchScores]:
    """A function from the number of a batch to its scores; what a batch's records begin with is computed once."""

    @functools.lru_cache(maxsize=1)  # batches come group by group
    def states(group: int) -> Cache | None:
        return states_of(scorer().parts, plan.beginnings[group]) if group >= 0 and scorer().shares else None

    return lambda batch: score_batch(scorer(), table, plan.rows_of_batch(batch), states(int(plan.groups[batch])))


def fitting(job: Job, resolved: Resolved, load: LoadScorer) -> Resolved:
    """What score.tokens_per_batch=auto is on this device: halved until the dearest batch fits into its memory.

    A CPU's memory is not tried out: there the system ends the process rather than refuse.
    """
    if resolve_device().type == "cpu":
        return resolved
    table, recipe = open_tokens(job.folder.work / "tokens"), resolved.recipe
    while True:
        budget = tokens_per_batch(resolved.recipe)
        plan = plan_table(table, budget)
        if not len(plan.costs):
            return resolved
        scores = batch_scores(lambda: load(recipe), table, plan)(int(plan.costs.argmax()))
        if len(scores.rows) == 1 or not scores.split:
            return resolved
        logger.info("score.tokens_per_batch=auto: %d tokens do not fit into memory; trying half", budget)
        resolved = with_tokens_per_batch(resolved, budget // 2)


def tokens_per_batch(recipe: Recipe) -> int:
    """The setting of a resolved recipe."""
    assert isinstance(recipe.score.tokens_per_batch, int)
    return recipe.score.tokens_per_batch


def _load_scorer(job: Job, recipe: Recipe) -> Scorer:
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
        shares = sharing_check(parts).passed
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = head_rows(vocabulary, on_gpu=parts.device.type == "cuda")
    return Scorer(parts, layers, rows, shares)
