"""scores.parquet before a score: what every record is. Light, so that a selection need not load a model."""

from __future__ import annotations

from pathlib import Path

from curate.pipeline.job import Job
from curate.runs.stage import Stage
from curate.tables.scores import write_rows


def ensure_rows(job: Job) -> Path:
    """Return scores.parquet, written without a score if it is not there; called by the main process."""
    path = job.folder.path / "scores.parquet"
    unknown = job.folder.stage("tokens") is None and job.folder.stage("scores") is None
    if unknown or not path.exists():  # of what is there, the ids of the tokens tell whether it is of these records
        from curate.pipeline.tokens import make_tokens

        store = make_tokens(job)
        if not path.exists():
            stage = Stage(job.folder, "rows", job.settled.tokens_key, (path,))
            with stage.replacing(path) as temporary:
                write_rows(temporary, store)
    return path
