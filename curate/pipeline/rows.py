"""Writes scores.parquet before there is a score: id and status of every record, and its lengths in tokens.

A selection by length or at random needs no more than that, and so loads no model.
"""

from __future__ import annotations

from pathlib import Path

from curate.pipeline.job import Job
from curate.runs.stage import Stage
from curate.tables.scores import write_rows


def ensure_rows(job: Job) -> Path:
    """Return the path of scores.parquet; it is written without a score if it is missing. Called by the main process."""
    path = job.folder.path / "scores.parquet"
    # Without a manifest the file may be of other records; the ids of the tokens then show whether it is.
    unknown = job.folder.stage("tokens") is None and job.folder.stage("scores") is None
    if unknown or not path.exists():
        from curate.pipeline.tokens import make_tokens

        store = make_tokens(job)
        if not path.exists():
            stage = Stage(job.folder, "rows", job.settled.tokens_key, (path,))
            with stage.replacing(path) as temporary:
                write_rows(temporary, store)
    return path
