"""The verbs: which stages each of them runs, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from curate.config import Recipe, Select
from curate.pipeline.environment import environment
from curate.pipeline.given import Given
from curate.pipeline.job import Job
from curate.pipeline.needed import FURTHER, needs_embeddings, needs_evaluation, passes_to_run
from curate.pipeline.opening import open_job
from curate.pipeline.settle import save_recipe
from curate.pipeline.stored_estimate import enter_truth
from curate.runs.folder import RunFolder
from curate.runs.launch import Progress
from curate.types import CurateError

Verb = Literal["run", "score", "embed", "select", "train", "evaluate", "compare"]

BEGINS: tuple[Verb, ...] = ("run", "score", "embed", "compare")
"""The verbs that may begin a run; the others need the folder of one."""

# Stages are imported where they are used, so that `select` starts without loading torch and transformers.


def perform(
    verb: Verb,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    training: bool = True,
    given: Given | None = None,
) -> RunFolder:
    """Run the stages of a verb in the recipe's run folder, and return the folder. Finished stages are skipped.

    Args:
        verb: "run" is all the others but compare; it embeds and evaluates only where that is needed.
        recipe: see `curate.config.load_recipe`.
        progress: called with stage, done, total (None if unknown) and unit.
        training: for "run" only: if false, it ends with the selection.
        given: records and a model in memory; the recipe names the files and the model that they stand for.

    Raises:
        CurateError: a person's mistake; the message says what was expected, what was got and what to do.
        TimeoutError: another process of the launch made no progress for run.hang_timeout seconds.
    """
    if verb not in get_args(Verb):
        raise CurateError(f"expected a verb among {', '.join(get_args(Verb))}, got {verb!r}")
    with open_job(verb, recipe, begin=verb in BEGINS, progress=progress, given=given) as job:
        evaluating = verb == "evaluate" or (verb == "run" and training and needs_evaluation(recipe))
        if job.is_main and verb in ("run", "train"):
            embedding = verb == "run" and needs_embeddings(job.recipe.select)
            _check_ahead(job, embedding=embedding, training=training, evaluating=evaluating)
        if verb in ("run", "score"):
            selects = [job.recipe.select] if verb == "run" else []
            job = _score(job, selects, complexity=verb == "score")
        if verb == "embed" or (verb == "run" and needs_embeddings(job.recipe.select)):
            from curate.pipeline.embeddings import embed

            embed(job)
        if verb in ("run", "select"):
            from curate.pipeline.selection import select

            select(job)
        if verb == "train" or (verb == "run" and training):
            from curate.pipeline.adapter import train

            train(job)
        if evaluating:
            from curate.pipeline.evaluation import evaluate

            evaluate(job)
        if verb == "compare":
            _compare(job)
        if job.is_main:
            enter_truth(recipe, job.folder)  # the recipe as it was written: an estimate is stored with that
    return RunFolder(Path(recipe.run.dir))


def _compare(job: Job) -> None:
    """Compute the scores and embeddings that any selector reads, then all cells of the comparison."""
    from curate.pipeline.comparison import compare, num_layers
    from curate.pipeline.plan_cells import selects_of

    selects = selects_of(job.recipe, num_layers=num_layers(job))
    embedding = any(map(needs_embeddings, selects))
    if job.is_main:
        _check_ahead(job, embedding=embedding, training=True, evaluating=True)
    job = _score(job, selects, complexity=True)
    if embedding:
        from curate.pipeline.embeddings import embed

        embed(job)
    compare(job)


def _score(job: Job, selects: Sequence[Select], *, complexity: bool) -> Job:
    """Make the tokens, run the passes that are not finished, and add a person's own columns.

    Args:
        job: the job.
        selects: the selections whose scores are needed.
        complexity: compute complexity in any case.

    Returns:
        The job; where complexity was scored, with the batch size that was found to fit.
    """
    from curate.pipeline.passes import add_own_columns, run_pass
    from curate.pipeline.scores import score
    from curate.pipeline.tokens import tokens

    names = passes_to_run(job.recipe, selects, complexity=complexity)
    left = job.launch.from_main("passes", lambda: _passes_left(job, names), list[str])
    if left:
        store = tokens(job)
        if "complexity" in left:
            job = score(job, store)
        for name in left:
            if name in FURTHER:
                run_pass(job, name, store)
    if job.is_main:
        save_recipe(job.folder.path, job.recipe, job.launch.verb)  # again: now with the batch size
    if "columns" in names:
        job.launch.from_main("scores/columns", lambda: add_own_columns(job), type(None))
    return job


def _passes_left(job: Job, names: Sequence[str]) -> list[str]:
    """Return the passes that are not finished, and write recipe.yaml and facts about the machine before they begin."""
    from curate.pipeline.passes import clean_if_passed
    from curate.pipeline.scores import clean_if_scored

    left = [name for name in names if name == "complexity" and not clean_if_scored(job)]
    left += [name for name in names if name in FURTHER and not clean_if_passed(job, name)]
    if left or job.folder.stage("tokens") is None:  # else they would tell of a machine that computed nothing
        job.folder.describe(**environment(job.recipe, job.loaded.device()))
    save_recipe(job.folder.path, job.recipe, job.launch.verb)
    return left


def _check_ahead(job: Job, *, embedding: bool, training: bool, evaluating: bool) -> None:
    """Check that what later stages need is there, before hours are spent on scoring and training.

    Args:
        job: the job.
        embedding: whether anything is embedded: the embedder.
        training: whether anything is trained: the model to train and its tracker.
        evaluating: whether anything is evaluated: the files of evaluate.sets, the tasks, the judge's address.

    Raises:
        CurateError: one of them cannot be had.
    """
    from curate.models.embedder import check_embedder

    with job.launch.heartbeat.kept_up():
        if embedding:
            check_embedder(job.recipe.embed.model, trust_remote_code=job.recipe.model.trust_remote_code)
        if training:
            from curate.pipeline.adapter import check_trainable
            from curate.training.arguments import check_report_to

            check_trainable(job)
            check_report_to(job.recipe.train.report_to)
        if evaluating:
            from curate.evaluation.server import connect
            from curate.evaluation.tasks import check_tasks
            from curate.pipeline.references import references_in_files

            evaluate = job.recipe.evaluate
            references_in_files(job)
            check_tasks(evaluate.tasks, evaluate.include_path)
            if evaluate.judge is not None:
                connect(evaluate.judge.base_url, evaluate.judge.model)  # looks at the address; asks nothing yet
