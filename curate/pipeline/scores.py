"""From tokens to scores.parquet: a batch plan, chunks by every process, one table."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.pipeline.compute import (
    batch_scores,
    fitting_tokens_per_batch,
    may_reuse_prefixes,
    settled_tokens_per_batch,
)
from curate.pipeline.job import Job
from curate.pipeline.settle import save_recipe
from curate.pipeline.surroundings import surroundings
from curate.pipeline.tokens import tokens
from curate.run.atomic import write_json
from curate.run.folder import read_key
from curate.run.stage import Outcome, Stage
from curate.scoring.batches import BatchPlan, imbalance, plan_batches_of
from curate.scoring.score import ScoringModel, join_scores
from curate.tables.chunks import read_chunk, write_chunk
from curate.tables.scores import write_scores
from curate.tokens.store import open_tokens
from curate.types import STATUSES, BatchScores, CurateError, TokenStore

logger = logging.getLogger(__name__)

MAX_NON_FINITE = 0.01
_REUSE = "prefixes computed once"  # in the key of unfinished chunks
_NON_FINITE = STATUSES.index("non_finite")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process has found out before anything is computed.

    done              the scores were finished before
    tokens_per_batch  the size of batches, found for this device
    reuse_prefixes    prefixes that records share are computed once
    finished          numbers of the chunks that are there
    """

    done: bool
    tokens_per_batch: int
    reuse_prefixes: bool = False
    finished: list[int] = field(default_factory=list)


def score(job: Job) -> Job:
    """Bring the run to where scores.parquet is finished; returns the job with batches of the size that was found.

    Raises:
        CurateError: scores made with other settings or inputs are in the way; the model cannot be scored; more than
            1 % of the scores are not finite.
    """
    started = time.monotonic()
    prepared = job.launch.lead("scores", lambda: _prepare(job), Prepared)
    job = _with_tokens_per_batch(job, prepared.tokens_per_batch)
    if prepared.done:
        return job
    store = open_tokens(job.folder.work / "tokens")
    plan = plan_batches_of(store, prepared.tokens_per_batch, reuse_prefixes=prepared.reuse_prefixes)
    chunks = _score_chunks(job, store, plan, set(prepared.finished))
    if job.is_main:
        _publish(job, store, plan, chunks, started)
    return job


def _stage(job: Job, started: float | None = None) -> Stage:
    key = {**job.settled.tokens_key, **job.settled.scores_key}
    products = (job.folder.path / "scores.parquet",)
    return Stage(job.folder, "scores", key, products, time.monotonic() if started is None else started)


def _prepare(job: Job) -> Prepared:
    tokens_per_batch = settled_tokens_per_batch(job.recipe)
    chunks = job.folder.work / "scores"
    if _stage(job).is_finished():
        shutil.rmtree(chunks, ignore_errors=True)  # were it killed before it could do so
        save_recipe(job.folder.path, job.recipe)
        return Prepared(True, tokens_per_batch)
    store = tokens(job)

    def load() -> ScoringModel:
        with job.launch.heartbeat.kept_up():
            return job.loaded.scoring_model(job.recipe)

    finished: list[int] = []
    if (known := read_key(chunks)) is not None:
        job.folder.require_same("scores", known, {**_stage(job).key, _REUSE: known.get(_REUSE)})
        reuse_prefixes = bool(known.get(_REUSE))
        plan = plan_batches_of(store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
        finished = _finished(job, chunks, plan)
    else:
        reuse_prefixes = may_reuse_prefixes(load, store, tokens_per_batch)
        if job.settled.fit_batches:
            tokens_per_batch = fitting_tokens_per_batch(load, store, tokens_per_batch, reuse_prefixes=reuse_prefixes)
            job = _with_tokens_per_batch(job, tokens_per_batch)
        shutil.rmtree(chunks, ignore_errors=True)  # chunks without a key are nobody's
        write_json(chunks / "key.json", {**_stage(job).key, _REUSE: reuse_prefixes})
    job.folder.describe(**surroundings(job.recipe))
    save_recipe(job.folder.path, job.recipe)
    return Prepared(False, tokens_per_batch, reuse_prefixes, finished)


def _with_tokens_per_batch(job: Job, tokens_per_batch: int) -> Job:
    recipe, key = job.recipe, {**job.settled.scores_key, "score.tokens_per_batch": tokens_per_batch}
    score = recipe.score.model_copy(update={"tokens_per_batch": tokens_per_batch})
    settled = replace(job.settled, recipe=recipe.model_copy(update={"score": score}), scores_key=key)
    return replace(job, settled=settled)


def _finished(job: Job, folder: Path, plan: BatchPlan) -> list[int]:
    """The chunks that hold what the plan says; it is made anew by every call, and another version's may differ."""

    def read(path: Path) -> None:
        if not np.array_equal(read_chunk(path).rows, plan.rows_of_chunk(int(path.stem))):
            raise ValueError("not the records of this chunk")

    return job.launch.finished_chunks(folder, read)


def _score_chunks(job: Job, store: TokenStore, plan: BatchPlan, finished: Collection[int]) -> list[Path]:
    def load() -> ScoringModel:  # not called where nothing is left to do
        with job.launch.heartbeat.kept_up():
            return job.loaded.scoring_model(job.recipe)

    scores_of = batch_scores(load, store, plan)
    alone = job.launch.processes.count == 1
    done = sum(len(plan.rows_of_chunk(chunk)) for chunk in finished) if alone else 0
    bad = 0
    told = False

    def compute(chunk: int) -> BatchScores:
        nonlocal done, bad, told
        parts = []
        for batch in range(plan.chunks[chunk], plan.chunks[chunk + 1]):
            scores = scores_of(batch)
            parts.append(scores)
            done, bad = done + len(scores.rows), bad + int((scores.status == _NON_FINITE).sum())
            job.launch.advance("scores", done, len(plan.order) if alone else None, "records")
        _refuse_non_finite(job, bad, len(store))
        joined = join_scores(parts)
        if joined.split and not told:
            told = True
            logger.warning("out of memory: batches that do not fit are halved (score.tokens_per_batch is their size)")
        return joined

    return job.launch.compute_chunks(
        job.folder.work / "scores", plan.num_chunks, compute, write_chunk, finished=finished
    )


def _publish(job: Job, store: TokenStore, plan: BatchPlan, chunks: list[Path], started: float) -> None:
    stage, split = _stage(job, started), list[int]()

    def stored() -> Iterator[BatchScores]:
        for number, path in enumerate(chunks):
            scores = read_chunk(path)
            if scores.split:
                split.append(number)
            job.launch.heartbeat.beat()
            yield scores

    with stage.replacing(job.folder.path / "scores.parquet") as temporary:
        layers = job.settled.scores_key["score.exits"]
        counts = write_scores(temporary, store, stored(), layers=layers, num_layers=job.settled.num_layers)
        _refuse_non_finite(job, counts["non_finite"], len(store))
    rows_out = counts.pop("scored", 0)
    details = _details(job, store, plan, split, time.monotonic() - started)
    note = f"{details['tokens_per_second']:,} tokens/s"
    stage.finish(Outcome(len(store), rows_out, dict(sorted(counts.items())), details, note))
    shutil.rmtree(job.folder.work / "scores")


def _details(job: Job, store: TokenStore, plan: BatchPlan, split: list[int], seconds: float) -> dict[str, Any]:
    return {
        "tokens_per_second": round(float(store.rows["needed"][plan.order].sum()) / seconds),
        "processes": job.launch.processes.count,
        "prefixes_computed_once": [len(prefix) for prefix in plan.prefixes],
        "imbalance": round(imbalance(plan.chunk_costs, job.launch.processes.count), 4),
        "chunks_split_by_out_of_memory": split,
    }


def _refuse_non_finite(job: Job, count: int, total: int) -> None:
    if count <= MAX_NON_FINITE * total:
        return
    # Another dtype may then start afresh in this folder; other processes may still be writing chunks there.
    (job.folder.work / "scores" / "key.json").unlink(missing_ok=True)
    raise CurateError(
        f"{count} of {total} records have scores that are not finite (at most {MAX_NON_FINITE:.0%} are allowed): "
        f"model.dtype={job.recipe.model.dtype} overflows; use model.dtype=bfloat16 or float32"
    )
