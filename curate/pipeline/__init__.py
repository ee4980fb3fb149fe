r"""The street, from records to adapter; the only place that joins stages.

    records -> examples -> tokens -> scores ----\
                  \------> embeddings -> clusters -> selection -> adapter

Each verb brings the run folder to where its stage is finished, doing only what is not done yet. With several
processes the main one reads, publishes and says when a stage may start; all of them compute.

A verb loads only what it needs: `select` neither torch nor a model.
"""

from __future__ import annotations

from typing import Literal, get_args

from curate.config import Recipe
from curate.run.folder import RunFolder
from curate.run.job import Job, Progress, open_job
from curate.types import CurateError

Verb = Literal["run", "score", "embed", "select", "train"]


def perform(verb: Verb, recipe: Recipe, *, progress: Progress | None = None) -> RunFolder:
    """Do a verb in the recipe's run folder; returns the folder.

    Args:
        verb: "run" is all the others, one after the other.
        recipe: see `curate.config.load_recipe`.
        progress: called with stage, done, total (None if unknown) and unit.

    Raises:
        CurateError: a person's mistake; the message says what was expected, what was got and what to do.
        TimeoutError: another process of the launch made no progress for run.hang_timeout seconds.
    """
    if verb not in get_args(Verb):
        raise CurateError(f"expected a verb among {', '.join(get_args(Verb))}, got {verb!r}")
    with open_job(recipe, verb, progress or _silent) as job:
        if verb == "run" and job.processes.is_main:
            _check_ahead(job)
        if verb in ("run", "score"):
            job = _score(job)
        if verb in ("run", "embed"):
            _embed(job)
        if verb in ("run", "select"):
            _select(job)
        if verb in ("run", "train"):
            _train(job)
    return job.folder


def _check_ahead(job: Job) -> None:
    """Look for what only later stages need, so that its absence does not come out after hours of scoring."""
    from curate.diversity.embed import embedder_folder
    from curate.pipeline.adapter import check_trainable
    from curate.read.files import open_source

    with job.heartbeat.kept_up():
        open_source(job.recipe.data)
        embedder_folder(job.recipe.embed.model)
        check_trainable(job)


def _score(job: Job) -> Job:
    from curate.pipeline.scores import score

    return score(job)


def _embed(job: Job) -> None:
    from curate.pipeline.embeddings import embed

    embed(job)


def _select(job: Job) -> None:
    from curate.pipeline.selection import select

    select(job)


def _train(job: Job) -> None:
    from curate.pipeline.adapter import train

    train(job)


def _silent(stage: str, done: int, total: int | None, unit: str) -> None:
    pass
