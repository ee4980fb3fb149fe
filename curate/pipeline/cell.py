"""One cell of a comparison: trains on what it keeps, evaluates, and stores the result in comparison/NAME."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.compare.cells import Cost
from curate.evaluation.summary import Losses
from curate.evaluation.tasks import TaskResult
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.pipeline.features import features_of, trained_model
from curate.pipeline.job import Job
from curate.pipeline.library_errors import training
from curate.pipeline.losses import load_trained_model, losses_on, task_results
from curate.pipeline.plan_cells import PlannedCell
from curate.pipeline.references import References
from curate.runs.atomic import keep_others, replacing, write_json
from curate.runs.keys import Key, fingerprint, read_key
from curate.tables.digests import digest_of_blocks
from curate.tables.evaluation import SetLosses, read_evaluation, write_evaluation
from curate.training.features import Feature
from curate.training.lora import TrainResult, train_adapter
from curate.types import BoolArray, CurateError


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell.

    losses  by the name of the set
    tasks   results of lm-eval tasks
    cost    without the seconds of scoring and embedding, which cells share
    """

    losses: dict[str, Losses]
    tasks: list[TaskResult] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class PreparedCell:
    """What the main process finds out about a cell before it is trained.

    done  whether it was finished before
    key   what its result depends on, by name
    rows  the records that it keeps, ascending
    """

    done: bool
    key: dict[str, Any]
    rows: list[int] = field(default_factory=list)


def cell_key(job: Job, planned: PlannedCell, kept: BoolArray, steps: int | None, sets: Sequence[References]) -> Key:
    """Return what a cell depends on: the records that it keeps, how it trains, and what it is evaluated on.

    Args:
        job: the job.
        planned: the cell; its seed counts, its selector does not.
        kept: the records that it keeps, bool [N].
        steps: optimizer steps; None where it trains for train.epochs.
        sets: what it is evaluated on.
    """
    model, recipe = trained_model(job.recipe), job.recipe
    # Left out: what does not change the trained weights, and what the cell or the comparison sets itself.
    ignored = {"report_to", "model", "revision", "merge", "seed", "max_steps", "save_steps"}
    settings = recipe.train.model_dump(mode="json", exclude=ignored)
    if steps is not None:
        settings.pop("epochs")
    return {
        "tokens": fingerprint(job.settled.tokens_key),
        "kept": hashlib.sha256(np.packbits(kept).tobytes()).hexdigest(),
        "seed": planned.cell.seed,
        "steps": steps,
        "model.dtype": recipe.model.dtype,
        "train.model": weight_fingerprint(model.name, revision=model.revision),
        "train.tokenizer": tokenizer_fingerprint(model.name, revision=model.revision),
        **{f"train.{name}": value for name, value in settings.items()},
        "sets": {wanted.name: fingerprint(wanted.key) for wanted in sets},
        "evaluate.tasks": list(recipe.evaluate.tasks),
        "evaluate.task_limit": recipe.evaluate.task_limit,
    }


def run_cell(job: Job, planned: PlannedCell, kept: BoolArray | None, steps: int | None, sets: list[References]) -> None:
    """Train a cell on what it keeps, evaluate it and store the result, unless that is finished with the same key.

    Args:
        job: the job.
        planned: the cell.
        kept: the records that it keeps, bool [N]; None in other processes than the main one.
        steps: optimizer steps; None: as many as train.epochs make.
        sets: what it is evaluated on.

    Raises:
        CurateError: there is nothing to train on, or training or evaluation is refused.
    """

    def prepare() -> PreparedCell:
        assert kept is not None
        return _prepare(job, planned, cell_key(job, planned, kept, steps, sets), kept)

    prepared = job.launch.from_main(f"cell {planned.name}", prepare, PreparedCell)
    if prepared.done:
        return
    features, _ = features_of(job, np.array(prepared.rows, np.int64))
    if not features:
        raise CurateError(f"{planned.name}: none of the kept records can be trained on")
    started = time.monotonic()
    result = _train(job, planned, features, steps)
    if not job.is_main:  # all processes train; one evaluates
        return
    trained = time.monotonic() - started
    tokens = np.array([int((np.asarray(labels) >= 0).sum()) for _, labels in features])
    cost = Cost(
        kept_records=len(features),
        kept_tokens=int(tokens.sum()),
        seen_tokens=round(result.steps * result.effective_batch_size * float(tokens.mean())),
        steps=result.steps,
        training_seconds=round(trained, 1),
    )
    _evaluate(job, planned, prepared.key, cost, sets)
    shutil.rmtree(_work(job, planned))


def _prepare(job: Job, planned: PlannedCell, key: Key, kept: BoolArray) -> PreparedCell:
    """Look for the result of an earlier call, else make the folder in which the cell is trained."""
    done, work = stored_result(job, planned, key) is not None, _work(job, planned)
    if not done:
        if work.exists() and read_key(work) != key:
            shutil.rmtree(work)  # training would continue from the checkpoints of another key
        shutil.rmtree(work / "adapter", ignore_errors=True)  # a killed call may have left a half-written file in it
        write_json(work / "key.json", dict(key))
    return PreparedCell(done, dict(key), np.flatnonzero(kept).tolist())


def _train(job: Job, planned: PlannedCell, features: Sequence[Feature], steps: int | None) -> TrainResult:
    """Train an adapter with the seed of the cell, in work/."""
    work = _work(job, planned)
    with training(job, work):
        return train_adapter(
            features,
            load_trained_model(job, None),
            settings=job.recipe.train.model_copy(update={"max_steps": steps}),
            seed=planned.cell.seed,
            checkpoint_dir=work / "checkpoints",
            output_dir=work / "adapter",
            on_log=lambda entry: job.launch.advance(
                f"training {planned.name}", int(entry["step"]), int(entry["total_steps"]), "steps"
            ),
        )


def _evaluate(job: Job, planned: PlannedCell, key: Key, cost: Cost, sets: list[References]) -> None:
    """Evaluate the trained cell, and write comparison/NAME as one folder: a cell is finished when it is there."""
    started, folder, work = time.monotonic(), cell_folder(job, planned), _work(job, planned)
    model = load_trained_model(job, work / "adapter")
    losses = losses_on(job, model, sets, of=planned.name)
    tasks = task_results(job, model)
    cost = replace(cost, evaluation_seconds=round(time.monotonic() - started, 1))
    with replacing(folder) as temporary:
        temporary.mkdir()
        results = [SetLosses("adapter", name, losses[name]) for name in losses]
        write_evaluation(temporary / "evaluation.parquet", results)
        if job.recipe.compare.keep_adapters:
            shutil.copytree(work / "adapter", temporary / "adapter")
        about = {"key": dict(key), "cost": asdict(cost), "tasks": [asdict(task) for task in tasks]}
        keep_others(folder, temporary, ours=("cell.json", "evaluation.parquet", "adapter"))
        about["digest"] = digest_of_blocks(temporary / "evaluation.parquet")
        write_json(temporary / "cell.json", about)


def stored_result(job: Job, planned: PlannedCell, key: Key | None = None) -> CellResult | None:
    """Return the result of a finished cell; None if there is none, or if it has another key than `key`."""
    folder = cell_folder(job, planned)
    try:
        about = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        if key is not None and about["key"] != json.loads(json.dumps(dict(key))):  # as stored: tuples become lists
            return None
        if about.get("digest", digest := digest_of_blocks(folder / "evaluation.parquet")) != digest:
            return None  # of another cell
        losses = {found.set: found.losses for found in read_evaluation(folder / "evaluation.parquet")}
        return CellResult(losses, [TaskResult(**task) for task in about["tasks"]], Cost(**about["cost"]))
    except (
        CurateError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ):  # damaged, or of another version: it is done again
        return None


def cell_folder(job: Job, planned: PlannedCell) -> Path:
    """Return the folder of a finished cell."""
    return job.folder.path / "comparison" / planned.name


def _work(job: Job, planned: PlannedCell) -> Path:
    return job.folder.work / f"cell-{planned.name}"
