"""Measures a model: losses on every set of references, and results of lm-eval tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from curate.evaluation.losses import response_losses
from curate.evaluation.summary import Losses
from curate.evaluation.task_results import TaskResult
from curate.evaluation.tasks import evaluate_tasks
from curate.models.load import load_model
from curate.pipeline.features import base_key, trained_model
from curate.pipeline.job import Job
from curate.pipeline.references import References
from curate.pipeline.tokens import settled_now
from curate.runs.atomic import replacing, write_json
from curate.runs.digests import digest_of_blocks
from curate.runs.keys import Key, fingerprint
from curate.tables.json_values import read_json
from curate.training.lora import load_adapter
from curate.types import CurateError


def load_trained_model(job: Job, adapter: Path | None) -> Any:
    """Return the model to train, ready to be evaluated: untuned if `adapter` is None, else with that adapter."""
    model, settings = trained_model(job.recipe), job.recipe.model
    with job.launch.busy("loading the model to evaluate"):
        loaded = load_model(
            model.name,
            revision=model.revision,
            dtype=settings.dtype,
            quantization=job.recipe.train.quantization,  # as it was trained: an adapter fits the weights it was made on
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )
        return loaded if adapter is None else load_adapter(loaded, adapter)


def losses_on(job: Job, model: Any, sets: list[References], *, of: str) -> dict[str, Losses]:
    """Return the losses of a loaded model on every set, by the set's name; `of` is what the progress bar calls it."""
    found = {}
    for wanted in sets:
        stage = f"loss of {of} on {wanted.name}"

        def show(done: int, total: int, stage: str = stage) -> None:  # a default, since `stage` changes in the loop
            job.launch.advance(stage, done, total, "records")

        budget = job.recipe.evaluate.tokens_per_batch
        found[wanted.name] = response_losses(model, wanted.open(), tokens_per_batch=budget, on_progress=show)
    return found


def untuned_losses(job: Job, sets: list[References]) -> dict[str, Losses]:
    """Return the losses of the untuned model on every set, by the set's name. Stored ones are not computed again.

    Every adapter and every cell of a comparison is compared with them.
    """
    base = base_key(job)
    found: dict[str, Losses] = {}
    loaded = None
    for wanted in sets:
        name = fingerprint({"set": wanted.key, **base})
        path = job.folder.work / "untuned" / f"{name[:32]}.npz"
        losses = _stored_losses(path, records=len(wanted.open()))
        if losses is None:
            loaded = load_trained_model(job, None) if loaded is None else loaded  # not where all are stored
            losses = losses_on(job, loaded, [wanted], of="the untuned model")[wanted.name]
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, tokens=losses.tokens, loss=losses.loss)
        found[wanted.name] = losses
    return found


def _stored_losses(path: Path, *, records: int) -> Losses | None:
    """Return the losses of so many records as they were stored; None if there are none, or if the file is damaged."""
    try:
        # Opened here: where the file is damaged, numpy would leave it open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            losses = Losses(arrays["tokens"], arrays["loss"])
    except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile):
        return None
    return losses if losses.tokens.shape == losses.loss.shape == (records,) else None


def task_results(job: Job, model: Any) -> list[TaskResult]:
    """Return the results of the lm-eval tasks of evaluate.tasks for a loaded model."""
    settings, trained = job.recipe.evaluate, trained_model(job.recipe)

    def show(done: int, total: int | None) -> None:
        job.launch.advance("tasks", done, total, "requests" if total else "")

    with job.launch.busy("tasks"):
        return evaluate_tasks(
            model,
            job.loaded.tokenizer(trained.name, trained.revision),
            settings.tasks,
            include_path=settings.include_path,
            limit=settings.task_limit,
            batch_size=settings.task_batch_size,
            chat=job.recipe.prompt.template == "chat",
            now=settled_now(job.recipe.prompt),
            on_progress=show,
        )


def untuned_tasks(job: Job) -> list[TaskResult]:
    """Return the results of the tasks for the untuned model. Stored ones are not computed again."""
    if not job.recipe.evaluate.tasks:
        return []
    key = {"tokens": fingerprint(job.settled.tokens_key), **task_key(job), **base_key(job)}
    path = job.folder.work / "untuned" / f"tasks-{fingerprint(key)[:32]}.json"
    found = _stored_tasks(path)
    if found is None:
        found = task_results(job, load_trained_model(job, None))
        write_json(path, {"tasks": [asdict(task) for task in found]})
    return found


def _stored_tasks(path: Path) -> list[TaskResult] | None:
    """Return the results of tasks as they were stored; None if there are none, or if the file is damaged."""
    try:
        return read_json(path, dict[str, list[TaskResult]], "compare")["tasks"]
    except (CurateError, KeyError):
        return None


def task_key(job: Job) -> Key:
    """Return which tasks are run, by the settings' names; a folder of task files by what the files hold."""
    settings = job.recipe.evaluate
    key: dict[str, Any] = {"evaluate.tasks": list(settings.tasks), "evaluate.task_limit": settings.task_limit}
    if settings.tasks and settings.include_path is not None:
        folder = Path(settings.include_path)
        files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
        held = {path.relative_to(folder).as_posix(): digest_of_blocks(path) for path in files}
        key["evaluate.include_path"] = fingerprint(held)
    return key
