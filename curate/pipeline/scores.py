"""The complexity pass: tokens to scores.parquet. A batch plan, chunks by every process, one table."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate.pipeline.compute import (
    batch_scores,
    fitting_tokens_per_batch,
    may_reuse_prefixes,
    settled_tokens_per_batch,
)
from curate.pipeline.job import Job
from curate.pipeline.parts import BatchFunction, Part, compute_part, finished_chunks, refuse_non_finite, stored_chunks
from curate.pipeline.verified import column_digests, verified_rows
from curate.runs.keys import read_key, write_key
from curate.runs.stage import Outcome, Stage
from curate.scoring.batches import BatchPlan, imbalance, plan_batches_of
from curate.scoring.score import ScoringModel
from curate.tables.scores import count_scored_rows, holds_complexity, write_scores
from curate.types import TokenStore

logger = logging.getLogger(__name__)

_REUSE = "prefixes computed once"  # a name in the key of unfinished chunks


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process decides before anything is computed; every process plans the same batches from it.

    tokens_per_batch  the size of batches that fits this device
    reuse_prefixes    whether prefixes that records share are computed once
    finished          numbers of the chunks that an earlier call finished
    """

    tokens_per_batch: int
    reuse_prefixes: bool
    finished: list[int]


def clean_if_scored(job: Job) -> bool:
    """Return, and log, whether complexity was scored before; if so, remove the chunks that a killed call has left.

    Called by the main process.

    Raises:
        CurateError: scores.parquet is not the one that this run made.
    """
    stage = _stage(job)
    # The column too: scores.parquet may have been removed, and written again without scores.
    if not stage.holds() or not holds_complexity(job.folder.path / "scores.parquet"):
        return False
    verified_rows(job.folder)
    stage.is_finished()  # logs it
    shutil.rmtree(job.folder.work / "scores", ignore_errors=True)
    return True


def score(job: Job, store: TokenStore) -> Job:
    """Score the complexity of every record into scores.parquet, and return the job with the batch size that was found.

    Raises:
        CurateError: an earlier call began with other settings or inputs; the model cannot be scored correctly; more
            than 1 % of the scores are not finite.
    """
    started = time.monotonic()
    prepared = job.launch.from_main("scores", lambda: _prepare(job, store), Prepared)
    job = _with_tokens_per_batch(job, prepared.tokens_per_batch)
    plan = plan_batches_of(store, prepared.tokens_per_batch, reuse_prefixes=prepared.reuse_prefixes)
    chunks = compute_part(job, _part(job, store, plan), set(prepared.finished))
    if job.is_main:
        _publish(job, store, plan, chunks, started)
    return job


def _stage(job: Job, started: float | None = None) -> Stage:
    key = {**job.settled.tokens_key, **job.settled.scores_key}
    path, begun = job.folder.path / "scores.parquet", time.monotonic() if started is None else started
    return Stage(job.folder, "scores", key, (path,), begun, lambda: count_scored_rows(path))


def _prepare(job: Job, store: TokenStore) -> Prepared:
    """Decide how batches are planned: as the call that began did, else by trying the model on this device."""
    tokens_per_batch, chunks = settled_tokens_per_batch(job.recipe), job.folder.work / "scores"
    if (known := read_key(chunks)) is not None:  # an earlier call has begun
        # Whether prefixes are reused was decided by the call that began: it is taken over, not compared.
        job.folder.require_same("scores", known, {**_stage(job).key, _REUSE: known.get(_REUSE)})
        reuse_prefixes = bool(known.get(_REUSE))
        plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
        return Prepared(tokens_per_batch, reuse_prefixes, finished_chunks(job, _part(job, store, plan)))

    def load() -> ScoringModel:
        return _load(job)

    reuse_prefixes = may_reuse_prefixes(load, store, tokens_per_batch)
    if job.settled.fit_batches:
        tokens_per_batch = fitting_tokens_per_batch(load, store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
        job = _with_tokens_per_batch(job, tokens_per_batch)
    shutil.rmtree(chunks, ignore_errors=True)  # chunks without a key: nobody knows what they were made with
    # The key is written before the first chunk, with the batch size in it: a call that continues plans the same.
    write_key(chunks, {**_stage(job).key, _REUSE: reuse_prefixes})
    return Prepared(tokens_per_batch, reuse_prefixes, [])


def _with_tokens_per_batch(job: Job, tokens_per_batch: int) -> Job:
    """Return the job with a batch size in its recipe, and in the key of the scores."""
    recipe, key = job.recipe, {**job.settled.scores_key, "score.tokens_per_batch": tokens_per_batch}
    score = recipe.score.model_copy(update={"tokens_per_batch": tokens_per_batch})
    settled = replace(job.settled, recipe=recipe.model_copy(update={"score": score}), scores_key=key)
    return replace(job, settled=settled)


def _part(job: Job, store: TokenStore, plan: BatchPlan) -> Part:
    @contextmanager
    def whole_model(subnet: int) -> Iterator[BatchFunction]:
        # Passed as a function, so that the model is loaded only if a chunk still has to be computed.
        yield batch_scores(lambda: _load(job), store, plan)

    return Part("scores", job.folder.work / "scores", store, plan, 1, whole_model)


def _load(job: Job) -> ScoringModel:
    with job.launch.busy("loading the model"):
        return job.loaded.scoring_model(job.recipe.model, job.recipe.score.exits)


def _publish(job: Job, store: TokenStore, plan: BatchPlan, chunks: list[Path], started: float) -> None:
    """Write scores.parquet from the chunks, beside the columns of other passes, and remove the chunks."""
    stage, split, path = _stage(job, started), list[int](), job.folder.path / "scores.parquet"
    with stage.replacing(path) as temporary:
        counts = write_scores(
            temporary,
            store,
            stored_chunks(job, chunks, split),
            layers=job.settled.scores_key["score.exits"],
            num_layers=job.settled.num_layers,
            earlier=path if path.exists() else None,
        )
        # Once more, over all chunks: a process sees only its own while it computes.
        refuse_non_finite(job, job.folder.work / "scores", counts["non_finite"], len(store))
    rows_out = counts.pop("scored", 0)
    computed = _part(job, store, plan).num_tokens
    details = _details(job, computed, plan, split, time.monotonic() - started)
    details["digests"] = column_digests(path, ["complexity", "perplexity"])
    note = f"{details['tokens_per_second']:,} tokens/s"
    stage.finish(Outcome(len(store), rows_out, dict(sorted(counts.items())), details, note))
    shutil.rmtree(job.folder.work / "scores")


def _details(job: Job, computed: int, plan: BatchPlan, split: list[int], seconds: float) -> dict[str, Any]:
    """Return facts about how it was computed, for the manifest: speed, processes, prefixes, split chunks."""
    return {
        "tokens_per_second": round(computed / seconds),
        "processes": job.launch.processes.count,
        "prefixes_computed_once": [len(prefix) for prefix in plan.prefixes],
        "imbalance": round(imbalance(plan.chunk_costs, job.launch.processes.count), 4),
        "chunks_split_by_out_of_memory": split,
    }
