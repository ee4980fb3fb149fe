"""From records to scores.parquet: tokens once, a batch plan, chunks by every process, one table."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import Recipe
from curate.pipeline.keys import read_key
from curate.pipeline.scorer import LoadScorer, batch_scores, fitting, may_reuse_prefixes, scorer_once, tokens_per_batch
from curate.pipeline.settle import Resolved, resolve, surroundings
from curate.read.examples import read_examples
from curate.read.files import Source, open_source
from curate.run.atomic import replacing, write_json
from curate.run.job import Job, log_finished, log_stage, save_recipe
from curate.scoring.batches import BatchPlan, imbalance, plan_batches_of
from curate.scoring.score import join_scores
from curate.tables.scores import read_chunk, write_chunk, write_scores
from curate.tokens.store import holds, open_tokens, write_tokens
from curate.tokens.tokenize import tokenize
from curate.types import STATUSES, BatchScores, CurateError, TokenStore

logger = logging.getLogger(__name__)

MAX_NON_FINITE = 0.01
_REUSE = "prefixes computed once"  # in the key of unfinished chunks
_SCORED, _NON_FINITE = STATUSES.index("scored"), STATUSES.index("non_finite")


def score(job: Job) -> Job:
    """Bring the run to where scores.parquet is finished; returns the job with its recipe resolved.

    Raises:
        CurateError: scores made with other settings or inputs are in the way; the model cannot be scored; more than
            1 % of the scores are not finite.
    """
    started = time.monotonic()
    load = scorer_once(job)
    prepared = job.lead("scores", lambda: _prepare(job, load))
    job = replace(job, recipe=Recipe.model_validate(prepared["recipe"]))
    if prepared["done"]:
        return job
    store = open_tokens(job.folder.work / "tokens")
    plan = plan_batches_of(store, tokens_per_batch(job.recipe), reuse_prefixes=prepared["reuse_prefixes"])
    chunks = _score_chunks(job, store, plan, load, set(prepared["finished"]))
    if job.processes.is_main:
        _publish(job, store, plan, chunks, prepared, started)
    return job


def prepare_tokens(job: Job, source: Source, resolved: Resolved) -> None:
    """Tokenise every record into work/tokens, unless that was done with the same settings and input."""
    folder = job.folder.work / "tokens"
    if (before := read_key(folder)) is not None:
        job.folder.require_same("tokens", before, resolved.tokens_key)
        stage = job.folder.stage("tokens")
        if stage is not None and holds(folder, records=stage["in"], tokens=stage["tokens"]):
            return
    recipe, started = resolved.recipe, time.monotonic()
    assert recipe.prompt.max_length is not None
    tokens = tokenize(
        read_examples(recipe.data, source),
        resolved.tokenizer,
        template=recipe.prompt.template,
        system=recipe.prompt.system,
        max_length=recipe.prompt.max_length,
        too_long=recipe.prompt.too_long,
        allow_tokens=recipe.model.allow_tokens,
    )
    with replacing(folder) as temporary:
        for count in write_tokens(tokens, temporary):
            job.advance("tokens", count, None, "records")
        write_json(temporary / "key.json", dict(resolved.tokens_key))
    store = open_tokens(folder)
    statuses = np.bincount(store.rows["status"], minlength=len(STATUSES))
    dropped = {name: int(n) for name, n in zip(STATUSES, statuses, strict=True) if n and name != "scored"}
    hits = int(np.count_nonzero(store.rows["control_hits"]))
    facts = {
        "in": len(store),
        "out": int(statuses[_SCORED]),
        "dropped": dropped,
        "truncated": int(store.rows["truncated"].sum()),
        "records_with_control_tokens": hits,
        "tokens": len(store.input_ids),
        "seconds": round(time.monotonic() - started, 3),
    }
    job.folder.record("tokens", resolved.tokens_key, **facts)
    log_stage("tokens", facts)
    if hits:
        logger.warning("%d records contain control tokens; they are read as ordinary text (model.allow_tokens)", hits)


def _prepare(job: Job, load: LoadScorer) -> dict[str, Any]:
    source = open_source(job.recipe.data)
    with job.heartbeat.kept_up():
        resolved = resolve(job.recipe, job.folder, source)
    stage = job.folder.stage("scores")
    done = stage is not None and (job.folder.path / "scores.parquet").exists()
    if stage is not None:
        job.folder.require_same("scores", stage["key"], resolved.scores_key)
    finished: list[int] = []
    reuse_prefixes = False
    if done:
        log_finished("scores")
        shutil.rmtree(job.folder.work / "scores", ignore_errors=True)  # were it killed before it could do so
    else:
        prepare_tokens(job, source, resolved)
        chunks, store = job.folder.work / "scores", open_tokens(job.folder.work / "tokens")
        if (before := read_key(chunks)) is not None:
            reuse_prefixes = bool(before.get(_REUSE))
            job.folder.require_same("scores", before, {**resolved.scores_key, _REUSE: before.get(_REUSE)})
            finished = _finished(
                job, chunks, plan_batches_of(store, tokens_per_batch(resolved.recipe), reuse_prefixes=reuse_prefixes)
            )
        else:
            reuse_prefixes = may_reuse_prefixes(resolved, store, load)
            if job.recipe.score.tokens_per_batch == "auto":
                resolved = fitting(resolved, store, load, reuse_prefixes=reuse_prefixes)
            shutil.rmtree(chunks, ignore_errors=True)  # chunks without a key are nobody's
            write_json(chunks / "key.json", {**resolved.scores_key, _REUSE: reuse_prefixes})
        job.folder.describe(**surroundings(resolved.recipe))
    save_recipe(job.folder.path, resolved.recipe)
    return {
        "recipe": resolved.recipe.model_dump(mode="json"),
        "key": dict(resolved.scores_key),
        "num_layers": resolved.num_layers,
        "done": done,
        "finished": finished,
        "reuse_prefixes": reuse_prefixes,
    }


def _finished(job: Job, folder: Path, plan: BatchPlan) -> list[int]:
    """The chunks that hold what the plan says; it is made anew by every call, and another version's may differ."""

    def read(path: Path) -> None:
        if not np.array_equal(read_chunk(path).rows, plan.rows_of_chunk(int(path.stem))):
            raise ValueError("not the records of this chunk")

    return job.finished_chunks(folder, read)


def _score_chunks(
    job: Job, store: TokenStore, plan: BatchPlan, load: LoadScorer, finished: Collection[int]
) -> list[Path]:
    scores_of = batch_scores(lambda: load(job.recipe), store, plan)  # not loaded where nothing is left to do
    done = bad = 0
    told = False

    def compute(chunk: int) -> BatchScores:
        nonlocal done, bad, told
        parts = []
        for batch in range(plan.chunks[chunk], plan.chunks[chunk + 1]):
            scores = scores_of(batch)
            parts.append(scores)
            done, bad = done + len(scores.rows), bad + int((scores.status == _NON_FINITE).sum())
            job.advance("scores", done, None if job.processes.count > 1 else len(plan.order), "records")
        _refuse_non_finite(job, bad, len(store))
        joined = join_scores(parts)
        if joined.split and not told:
            told = True
            logger.warning("out of memory: batches that do not fit are halved (score.tokens_per_batch is their size)")
        return joined

    return job.compute_chunks(job.folder.work / "scores", plan.num_chunks, compute, write_chunk, finished=finished)


def _publish(
    job: Job, store: TokenStore, plan: BatchPlan, chunks: list[Path], prepared: dict[str, Any], started: float
) -> None:
    layers = prepared["key"]["score.exits"]
    split = []

    def stored() -> Iterator[BatchScores]:
        for number, path in enumerate(chunks):
            scores = read_chunk(path)
            if scores.split:
                split.append(number)
            job.heartbeat.beat()
            yield scores

    with replacing(job.folder.path / "scores.parquet") as temporary:
        counts = write_scores(temporary, store, stored(), layers=layers, num_layers=prepared["num_layers"])
        _refuse_non_finite(job, counts["non_finite"], len(store))
    seconds = time.monotonic() - started
    facts = {
        "in": len(store),
        "out": counts.pop("scored", 0),
        "dropped": dict(sorted(counts.items())),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(float(store.rows["needed"][plan.order].sum()) / seconds),
        "processes": job.processes.count,
        "prefixes_computed_once": [len(prefix) for prefix in plan.prefixes],
        "imbalance": round(imbalance(plan.chunk_costs, job.processes.count), 4),
        "chunks_split_by_out_of_memory": split,
    }
    job.folder.record("scores", prepared["key"], **facts)
    log_stage("scores", facts)
    shutil.rmtree(job.folder.work / "scores")


def _refuse_non_finite(job: Job, count: int, total: int) -> None:
    if count <= MAX_NON_FINITE * total:
        return
    # Another dtype may then start afresh in this folder; other processes may still be writing chunks there.
    (job.folder.work / "scores" / "key.json").unlink(missing_ok=True)
    raise CurateError(
        f"{count} of {total} records have scores that are not finite (at most {MAX_NON_FINITE:.0%} are allowed): "
        f"model.dtype={job.recipe.model.dtype} overflows; use model.dtype=bfloat16 or float32"
    )
