"""scores.parquet before a score: what every record is. Light, so that a selection need not load a model."""

from __future__ import annotations

from pathlib import Path

from curate.pipeline.job import Job
from curate.run.stage import Stage
from curate.tables.scores import write_rows


def ensure_rows(job: Job) -> Path:
    """Return scores.parquet, written without a score if it is not there; called by the main process."""
    path = job.folder.path / "scores.parquet"
    if not path.exists():
        from curate.pipeline.tokens import make_tokens

        stage = Stage(job.folder, "rows", job.settled.tokens_key, (path,))
        with stage.replacing(path) as temporary:
            write_rows(temporary, make_tokens(job))
    return path
