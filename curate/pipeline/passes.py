"""Runs the passes of the further scores: IFD, masks, dropout. Also joins a person's own columns (`add_own_columns`).

A pass has its own key, continues after an interruption, and adds its columns to scores.parquet. Columns that are there
do not change. What each pass computes is in `subnets`.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from curate.pipeline.job import Job
from curate.pipeline.parts import compute_part, finished_chunks, refuse_non_finite, stored_chunks
from curate.pipeline.rows import ensure_rows
from curate.pipeline.subnets import FurtherScore, Setup, further_score, pass_key, set_up
from curate.pipeline.verified import column_digests, verified_rows
from curate.runs.digests import sha256_of
from curate.runs.keys import fingerprint, read_key, write_key
from curate.runs.stage import Outcome, Stage
from curate.tables.own_scores import read_own_scores
from curate.tables.score_columns import column_names, read_rows, score_columns
from curate.tables.scores import add_columns, gather
from curate.types import STATUSES, BatchScores, FloatArray, TokenStore


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process finds out before anything is computed.

    setup     what must be known before the parts of the pass are made
    finished  for every part, the numbers of the chunks that an earlier call finished
    """

    setup: Setup
    finished: list[list[int]]


def clean_if_passed(job: Job, name: str) -> bool:
    """Return, and log, whether the columns of a further score are in scores.parquet; if so, remove its chunks.

    Called by the main process.

    Raises:
        CurateError: they were made with other settings.
    """
    stage, path = pass_stage(job, name), job.folder.path / "scores.parquet"
    record = job.folder.stage(stage.name)
    if record is None or not path.exists() or not set(record["columns"]) <= set(score_columns(path)):
        return False
    stage.refuse_change()
    shutil.rmtree(_folder(job, name), ignore_errors=True)  # left if the call that finished was killed
    return stage.is_finished()


def run_pass(job: Job, name: str, store: TokenStore) -> None:
    """Compute a further score and add its columns to scores.parquet.

    Args:
        job: the job.
        name: ifd, masked or dropout.
        store: the tokens of the scoring model.

    Raises:
        CurateError: an earlier call began with other settings; the model does not allow this score (masks on quantised
            weights); more than 1 % of the scores are not finite.
    """
    started = time.monotonic()
    prepared = job.launch.from_main(f"scores/{name}", lambda: _prepare(job, name, store), Prepared)
    score = further_score(job, name, store, prepared.setup)
    paths = [
        compute_part(job, part, set(finished)) for part, finished in zip(score.parts, prepared.finished, strict=True)
    ]
    if job.is_main:
        _publish(job, name, score, paths, started)


def add_own_columns(job: Job) -> None:
    """Add the columns of score.columns, a file of a person's own scores, to scores.parquet. Finished work is skipped.

    If the file changed, or another is named, its columns take the place of the earlier ones.

    Raises:
        CurateError: the file cannot be joined to the records.
    """
    assert job.recipe.score.columns is not None
    own, path = Path(job.recipe.score.columns), ensure_rows(job)
    verified_rows(job.folder)
    key = {"tokens": fingerprint(job.settled.tokens_key), "score.columns": sha256_of(own)}
    stage = Stage(job.folder, "scores/columns", key, (path,))
    record = job.folder.stage(stage.name)
    # The names are checked in the table too: scores.parquet may have been removed, and written again without them.
    earlier = set(record["columns"]) if record is not None else set()
    if earlier and earlier <= set(score_columns(path)) and stage.is_finished():
        return
    columns = read_own_scores(own, path, taken=set(column_names(path)) - earlier)
    with stage.replacing(path) as temporary:
        add_columns(path, temporary, columns, dict.fromkeys(columns, "from score.columns"), drop=earlier)
    rows_in = len(next(iter(columns.values())))
    lacking = int(np.isnan(np.stack(list(columns.values()))).any(axis=0).sum())
    dropped = {"no_value": lacking} if lacking else {}
    details = {"columns": list(columns), "digests": column_digests(path, columns)}
    stage.finish(Outcome(rows_in, rows_in - lacking, dropped, details, ", ".join(columns)))


def pass_stage(job: Job, name: str, started: float | None = None) -> Stage:
    """Return the stage of a further score; `started` is when it began, by the monotonic clock, default now."""
    path = job.folder.path / "scores.parquet"
    begun = time.monotonic() if started is None else started
    return Stage(job.folder, f"scores/{name}", pass_key(job, name), (path,), begun)


def _folder(job: Job, name: str) -> Path:
    return job.folder.work / f"scores-{name}"


def _prepare(job: Job, name: str, store: TokenStore) -> Prepared:
    """Find the chunks that an earlier call finished; without a readable key all are computed again."""
    stage, work = pass_stage(job, name), _folder(job, name)
    ensure_rows(job)
    verified_rows(job.folder)  # IFD reads what complexity has scored
    setup = set_up(job, name, work)
    if (known := read_key(work)) is not None:
        job.folder.require_same(stage.name, known, stage.key)
    else:
        for part in work.glob("part-*"):
            shutil.rmtree(part)
        write_key(work, stage.key)
    parts = further_score(job, name, store, setup).parts
    return Prepared(setup, [finished_chunks(job, part) for part in parts])


def _publish(job: Job, name: str, score: FurtherScore, paths: list[list[Path]], started: float) -> None:
    """Turn the chunks into columns, add these to scores.parquet, and remove the chunks.

    Args:
        job: the job.
        name: of the score.
        score: its parts, and how they become columns.
        paths: the files of the chunks of every part.
        started: when the pass began, by the monotonic clock.
    """
    stage, path, split = pass_stage(job, name, started), ensure_rows(job), list[int]()
    work = _folder(job, name)
    # Scores of all subnets together can exceed the memory: each is gathered into memory-mapped files in a temporary
    # folder, which must live until the columns are written.
    with ExitStack() as stack:
        gathered = []
        for part, own in zip(score.parts, paths, strict=True):
            for subnet in range(part.num_subnets):
                chunks = own[subnet * part.plan.num_chunks : (subnet + 1) * part.plan.num_chunks]
                folder = Path(stack.enter_context(TemporaryDirectory(dir=work, prefix=".gather.")))
                gathered.append(_gathered(job, part.store, chunks, part.columns, folder, split))
        columns = score.columns(gathered)
        missing = _missing(path, columns)
        for scores in gathered:
            bad = int((scores.status == STATUSES.index("non_finite")).sum())
            refuse_non_finite(job, work, bad, len(scores.rows))
        with stage.replacing(path) as temporary:
            add_columns(path, temporary, columns, score.about)
        del gathered
    seconds = time.monotonic() - started
    computed = sum(part.num_tokens for part in score.parts)  # for the speed
    details = {
        "columns": list(columns),
        "digests": column_digests(path, columns),
        "forwards": sum(part.forwards for part in score.parts),
        "tokens_per_second": round(computed / seconds),
        "processes": job.launch.processes.count,
        "chunks_split_by_out_of_memory": split,
    }
    rows_in = len(next(iter(columns.values())))
    note = f"{details['tokens_per_second']:,} tokens/s"
    stage.finish(Outcome(rows_in, rows_in - sum(missing.values()), missing, details, note))
    shutil.rmtree(work)


def _gathered(
    job: Job, store: TokenStore, chunks: list[Path], num_columns: int, folder: Path, split: list[int]
) -> BatchScores:
    """Return the scores of all records in one subnet, memory-mapped in `folder`; NaN where a record was not scored."""
    status, confidence, log_prob = gather(store, stored_chunks(job, chunks, split), num_columns, folder)
    unscored = status != STATUSES.index("scored")
    confidence[unscored] = log_prob[unscored] = np.nan
    return BatchScores(np.arange(len(store)), status, confidence, log_prob)


def _missing(path: Path, columns: dict[str, FloatArray]) -> dict[str, int]:
    """Return how many records have no number, by reason: their status, or no_score.

    no_score counts records with status scored for which this score is not defined, since there is nothing to predict.
    """
    status = read_rows(path).status
    lacking = ~np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    counts: dict[str, int] = {STATUSES[code]: int((status == code).sum()) for code in range(1, len(STATUSES))}
    counts["no_score"] = int((lacking & (status == 0)).sum())
    return {name: count for name, count in counts.items() if count}
