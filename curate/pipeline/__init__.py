r"""Joins the stages, from records to the comparison; the only room that does.

    records -> examples -> tokens -> scores ----\
                  \------> embeddings -> clusters -> selection -> adapter -> evaluation -> comparison

Each verb brings the run folder to where its stage is finished, doing only what is not done yet. With several
processes the main one reads, publishes and says when a stage may start; all of them compute.

A verb loads only what it needs: `select` neither torch nor a model.

What every stage is given, in reading order:

    settle.py        settles a job once: which data, which settings without `auto`, which tokens
    given.py         records and a model that a caller hands in from memory
    loaded.py        tokenizers and the scoring model of a job, each loaded once
    job.py           one call of a verb, with what was settled and loaded for it
    surroundings.py  versions, seed, device, threads and git commit, for the manifest

From records to scores:

    tokens.py        records to work/tokens: the first pass over the input
    rows.py          scores.parquet before a score: what every record is
    needed.py        which scores a verb computes, and why
    compute.py       how the batches of a plan are computed
    parts.py         one part of a score, computed chunk by chunk by every process
    scores.py        the complexity pass: tokens to scores.parquet
    subnets.py       what the further scores compute: IFD, masks, dropout
    passes.py        the further passes, each with its own key and columns

From vectors to the kept records:

    embeddings.py    texts to embeddings.npy
    clusters.py      embeddings.npy to clusters.parquet
    verified.py      files of the run, seen to be those that were written
    candidates.py    what a selection chooses from, read from the run folder
    selection.py     scores and clusters to selections/NAME: the second pass over the input
    hand_over.py     the files with which other training programs go on

From the kept records to what they are worth:

    features.py      input ids and labels of chosen records, for the model to train
    adapter.py       a selection to its LoRA adapter
    references.py    the sets that a model is evaluated on, as tokens
    losses.py        losses and tasks of a loaded model
    evaluation.py    an adapter to evaluation.json and evaluation.parquet
    plan_cells.py    which cells a comparison has
    cell_selections.py  what every cell keeps
    cell.py          one cell: selected, trained, evaluated, done once
    observations.py  what stands beside the table: overlaps, lengths, correlations, labels
    comparison.py    all cells, and the table that they come to

What people look at:

    preview.py       which tokens would be scored, before anything is paid
    probe_sample.py  a sample of the input, tokenised, and what it says of the whole
    probe_scores.py  what scoring costs here, from a few batches of the plan
    probe_stages.py  what embedding, clustering, training and evaluating cost here
    probe_costs.py   from these probes to seconds and memory of every stage
    estimate.py      what a run will take; nothing is written into its folder
    foretold.py      an estimate beside what it came to
    doctor.py        proves that a model is scored correctly on this machine
    doctor_tokenizer.py  what it looks at in the tokenizer and its chat template
    doctor_model.py  what it looks at in the model
    pages.py         the report of a run, and the difference of two selections
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from curate.config import Recipe, Select
from curate.pipeline.foretold import enter_truth
from curate.pipeline.given import Given, put_records
from curate.pipeline.job import Job
from curate.pipeline.loaded import Loaded
from curate.pipeline.needed import FURTHER, needs_embeddings, needs_evaluation, passes_to_run
from curate.pipeline.settle import Settled, save_recipe, settle
from curate.pipeline.surroundings import surroundings
from curate.runs.folder import RunFolder
from curate.runs.launch import Launch, Progress, open_launch
from curate.types import CurateError

Verb = Literal["run", "score", "embed", "select", "train", "evaluate", "compare"]

BEGINS: tuple[Verb, ...] = ("run", "score", "embed", "compare")
"""The verbs that may begin a run; the others go on with one."""


@contextmanager
def open_job(
    verb: str, recipe: Recipe, *, begin: bool, progress: Progress | None = None, given: Given | None = None
) -> Iterator[Job]:
    """Hold the run folder of a recipe, and settle a job in it.

    Raises:
        CurateError: the folder is not that of a run, or the recipe does not go with what is in it.
    """
    folder, hang_timeout = RunFolder(Path(recipe.run.dir)), recipe.run.hang_timeout
    with open_launch(folder, verb, begin=begin, progress=progress or _silent, hang_timeout=hang_timeout) as launch:
        yield _settled_job(launch, recipe, verb, given or Given())


def perform(
    verb: Verb,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    training: bool = True,
    given: Given | None = None,
) -> RunFolder:
    """Do a verb in the recipe's run folder; returns the folder.

    Args:
        verb: "run" is all the others, one after the other.
        recipe: see `curate.config.load_recipe`.
        progress: called with stage, done, total (None if unknown) and unit.
        training: of "run" only; if false it ends with the selection.
        given: records and a model in memory; the recipe names the files and the model that they stand for.

    Raises:
        CurateError: a person's mistake; the message says what was expected, what was got and what to do.
        TimeoutError: another process of the launch made no progress for run.hang_timeout seconds.
    """
    if verb not in get_args(Verb):
        raise CurateError(f"expected a verb among {', '.join(get_args(Verb))}, got {verb!r}")
    with open_job(verb, recipe, begin=verb in BEGINS, progress=progress, given=given) as job:
        if verb == "run" and job.is_main:
            _check_ahead(job, training=training)
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
        if verb == "evaluate" or (verb == "run" and training and needs_evaluation(recipe)):
            from curate.pipeline.evaluation import evaluate

            evaluate(job)
        if verb == "compare":
            _compare(job)
        if job.is_main:
            enter_truth(recipe, job.folder)
    return RunFolder(Path(recipe.run.dir))


def _compare(job: Job) -> None:
    from curate.pipeline.comparison import compare, num_layers
    from curate.pipeline.plan_cells import selects_of

    selects = selects_of(job.recipe, num_layers=num_layers(job))
    job = _score(job, selects, complexity=True)
    if any(map(needs_embeddings, selects)):
        from curate.pipeline.embeddings import embed

        embed(job)
    compare(job)


def _score(job: Job, selects: Sequence[Select], *, complexity: bool) -> Job:
    """Tokens first, then the passes that are left; the first of them brings the job with batches that fit."""
    from curate.pipeline.passes import own_columns, run_pass
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
        save_recipe(job.folder.path, job.recipe)
    if "columns" in names:
        job.launch.from_main("scores/columns", lambda: own_columns(job), type(None))
    return job


def _passes_left(job: Job, names: Sequence[str]) -> list[str]:
    from curate.pipeline.passes import is_passed
    from curate.pipeline.scores import is_scored

    left = [name for name in names if name == "complexity" and not is_scored(job)]
    left += [name for name in names if name in FURTHER and not is_passed(job, name)]
    if left or job.folder.stage("tokens") is None:
        job.folder.describe(**surroundings(job.recipe, job.loaded.device()))
    save_recipe(job.folder.path, job.recipe)
    return left


def _settled_job(launch: Launch, recipe: Recipe, verb: str, given: Given) -> Job:
    trust = recipe.model.trust_remote_code
    loaded = Loaded(trust_remote_code=trust, offload_folder=launch.folder.work / "offload", in_memory=given.model)

    def prepare() -> Settled:
        with launch.heartbeat.kept_up():
            if given.records is not None:
                put_records(launch.folder, given.records)
            return settle(recipe, launch.folder, loaded, ask_model=verb in ("run", "score", "compare"))

    settled = launch.from_main("settings", prepare, Settled)
    if verb in ("run", "score", "compare"):
        _keep_threads(launch.folder)
    return Job(launch, settled, loaded)


def _keep_threads(folder: RunFolder) -> None:
    """On a CPU the last bits of a score depend on the number of threads: a run keeps to its first, where it can."""
    import torch

    made = folder.manifest()
    threads = made.get("threads")
    if made.get("device") == "cpu" and isinstance(threads, int) and 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)


def _check_ahead(job: Job, *, training: bool) -> None:
    """Look for what only later stages need, so that its absence does not come out after hours of scoring."""
    from curate.models.embedder import check_embedder

    with job.launch.heartbeat.kept_up():
        if needs_embeddings(job.recipe.select):
            check_embedder(job.recipe.embed.model, trust_remote_code=job.recipe.model.trust_remote_code)
        if training:
            from curate.pipeline.adapter import check_trainable
            from curate.training.arguments import check_report_to

            check_trainable(job)
            check_report_to(job.recipe.train.report_to)


def _silent(stage: str, done: int, total: int | None, unit: str) -> None:
    pass
