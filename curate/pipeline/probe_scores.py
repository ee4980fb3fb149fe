"""Measures what scoring costs on this machine: computes a few batches, and fits a cost model to their times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import Cache

from curate.models.memory import memory_growth
from curate.probe.cost import BatchCost, fit_cost
from curate.runs.atomic import replacing
from curate.scoring.batches import BatchPlan, imbalance, plan_batches
from curate.scoring.dropout import dropout_subnets, score_dropout
from curate.scoring.masks import masked_weights
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.prefixes import Prefix, shared_prefixes
from curate.scoring.score import ScoringModel, full_model, score_batch
from curate.tables.chunks import write_chunk
from curate.types import STATUSES, BatchScores, FloatArray, TokenStore

_MOST_PLANNED = 1_000_000  # records; the plan of a larger input is scaled up from so many
_MOST_BATCHES, _LEAST_BATCHES = 12, 3
_BUDGET_SECONDS = 6.0
_GOLDEN = 0.618034  # its multiples, modulo 1, are spread evenly however many of them are taken


@dataclass(frozen=True, slots=True)
class FullPlan:
    """The batch plan of the whole input, made from the records of a sample.

    plan   its rows are those of the sample, each repeated as often as records like it are expected
    scale  batches of the whole input over those of the plan: 1 up to a million records
    """

    plan: BatchPlan
    scale: float


@dataclass(frozen=True, slots=True)
class ScoringCost:
    """What scoring with a model costs.

    batch              seconds of a batch, as a function of what is in it
    seconds_per_chunk  to store the scores of a chunk
    activations        bytes beyond the weights for the heaviest batch; None where they cannot be counted
    """

    batch: BatchCost
    seconds_per_chunk: float
    activations: int | None


def full_plan(store: TokenStore, records_per_row: float, tokens_per_batch: int, *, reuse_prefixes: bool) -> FullPlan:
    """Return the batch plan of an input of which `store` is a sample.

    Args:
        store: the sample.
        records_per_row: how many records of the input a record of the sample stands for.
        tokens_per_batch: as in the run.
        reuse_prefixes: as in the run.
    """
    # With more records, those of a batch are more alike in length and need less padding. So the records of the sample
    # are repeated; a plan of the sample alone, scaled up, would overestimate the padding.
    rows = np.flatnonzero(store.rows["status"] == STATUSES.index("scored"))
    lengths = store.rows["needed"][rows].astype(np.int64)
    prefixes, prefix_ids = list[Prefix](), np.full(len(rows), -1, np.int16)
    if reuse_prefixes:
        prefixes, prefix_ids = shared_prefixes(store, rows)
        lengths -= np.array([*map(len, prefixes), 0])[prefix_ids]  # id -1, no prefix, takes the 0 at the end
    records = round(len(rows) * records_per_row)
    planned = min(records, _MOST_PLANNED)
    which = np.arange(planned) * len(rows) // max(planned, 1)
    plan = plan_batches(
        np.arange(planned), lengths[which], tokens_per_batch, prefix_ids=prefix_ids[which], prefixes=prefixes
    )
    order = rows[which[plan.order]].astype(np.int32)
    return FullPlan(replace(plan, order=order), records / planned if planned else 1.0)


def batch_loads(plan: BatchPlan, store: TokenStore, scorer: ScoringModel) -> FloatArray:
    """Return the four quantities that the seconds of a batch depend on, float64 [B, 4] for B batches.

    They are 1 (a constant), padded tokens, response tokens times exits, and pairs of tokens in attention; see
    `curate.probe.cost`. Tokens and pairs are weighted by the fraction of the layers that is computed.
    """
    if not len(plan.costs):
        return np.zeros((0, 4))
    records = np.diff(plan.batches)
    answers = np.add.reduceat(store.rows["scored"][plan.order].astype(np.float64), plan.batches[:-1])
    prefix_lengths = np.array([*map(len, plan.prefixes), 0])[plan.prefix_ids]
    depth = max(scorer.layers) / scorer.parts.num_layers  # the pass ends after the last exit
    pairs = plan.costs * (plan.costs / records + prefix_lengths)
    return np.stack([np.ones(len(records)), plan.costs * depth, answers * len(scorer.layers), pairs * depth], axis=1)


def measure_scoring(
    scorer: ScoringModel, store: TokenStore, plan: BatchPlan, folder: Path, *, budget: float = _BUDGET_SECONDS
) -> ScoringCost:
    """Return what batches of the plan cost, from the times of a few short and long ones.

    They are computed with the exits that are asked for and with the last exit alone. After `budget` seconds and at
    least three batches no further one is begun.
    """
    # The heaviest batch comes first and is not timed: it warms up, and shows how much memory is needed.
    with memory_growth(scorer.parts.device) as grown:
        scores = _scored(scorer, store, plan, plan.heaviest)
    models = {model.layers: model for model in (scorer, full_model(scorer))}.values()
    begun, seen, seconds = time.monotonic(), list[FloatArray](), list[float]()
    for number, batch in enumerate(_spread_batches(plan)):
        for model in models:
            seconds.append(_seconds_of(model, store, plan, batch))
            seen.append(batch_loads(plan, store, model)[batch])
        if number + 1 >= _LEAST_BATCHES and time.monotonic() - begun > budget:
            break
    return ScoringCost(fit_cost(np.array(seen), np.array(seconds)), _seconds_per_chunk(scores, folder), grown())


def pass_seconds(cost: ScoringCost, full: FullPlan, store: TokenStore, scorer: ScoringModel) -> float:
    """Return the seconds of one pass over the whole input, in one process."""
    plan = full.plan
    batches = cost.batch.seconds(batch_loads(plan, store, scorer))
    prefixes = cost.batch.per_token * sum(map(len, plan.prefixes))
    return full.scale * (batches + prefixes) + cost.seconds_per_chunk * plan.num_chunks


def imbalances(plan: BatchPlan, counts: tuple[int, ...]) -> dict[int, float]:
    """Return the work of the busiest process over the mean, by number of processes: 1 if all have equal work."""
    return {count: imbalance(plan.chunk_costs, count) for count in counts}


def seconds_to_mask(scorer: ScoringModel, sparsity: float) -> float:
    """Return the seconds to mask the weights and to restore them."""
    started = time.perf_counter()
    with masked_weights(scorer.parts, sparsity):
        pass
    return time.perf_counter() - started


def dropout_factor(scorer: ScoringModel, cost: ScoringCost, store: TokenStore, plan: BatchPlan, rate: float) -> float:
    """Return the seconds of a forward pass under dropout, drawing its masks included, over those of one without."""
    subnets = dropout_subnets(scorer.parts, [rate], seed=0)
    batch = next(_spread_batches(plan))
    seconds = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        score_dropout(scorer, subnets, store, plan.rows_of_batch(batch))
        seconds.append(time.perf_counter() - started)
    own = batch_loads(plan, store, full_model(scorer))[batch : batch + 1]
    return min(seconds) / max(cost.batch.seconds(own), 1e-9)


def _spread_batches(plan: BatchPlan) -> Iterator[int]:
    """Yield batches spread over the work of a plan, the middle one first, evenly spread wherever the caller stops."""
    ends = np.cumsum(plan.costs)
    chosen: set[int] = set()
    for i in range(_MOST_BATCHES):
        batch = int(np.searchsorted(ends, (0.5 + i * _GOLDEN) % 1 * ends[-1], side="right"))
        if batch not in chosen:
            chosen.add(batch)
            yield batch


def _seconds_of(scorer: ScoringModel, store: TokenStore, plan: BatchPlan, batch: int) -> float:
    """Return the seconds of a batch, without those of its prefix, which is computed once for many batches."""
    cache = _prefix_cache(scorer, plan, batch)
    started = time.perf_counter()
    score_batch(scorer, store, plan.rows_of_batch(batch), cache)
    return time.perf_counter() - started


def _scored(scorer: ScoringModel, store: TokenStore, plan: BatchPlan, batch: int) -> BatchScores:
    return score_batch(scorer, store, plan.rows_of_batch(batch), _prefix_cache(scorer, plan, batch))


def _prefix_cache(scorer: ScoringModel, plan: BatchPlan, batch: int) -> Cache | None:
    prefix_id = int(plan.prefix_ids[batch])
    return compute_prefix_cache(scorer.parts, plan.prefixes[prefix_id]) if prefix_id >= 0 else None


def _seconds_per_chunk(scores: BatchScores, folder: Path) -> float:
    """Return the seconds to store a chunk, flushed to the disk as in a run; the mean of three."""
    started = time.perf_counter()
    for _ in range(3):
        with replacing(folder / "probe.chunk") as temporary:
            write_chunk(temporary, scores)
    return (time.perf_counter() - started) / 3
