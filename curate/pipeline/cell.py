"""One cell of a comparison: trains on what it keeps, evaluates, and stores the result in comparison/NAME."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.compare.cells import Cost
from curate.evaluation.summary import Losses
from curate.evaluation.task_results import TaskResult
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.pipeline.adapter import WEIGHTS
from curate.pipeline.features import features_of, trained_model
from curate.pipeline.job import Job
from curate.pipeline.library_errors import training
from curate.pipeline.losses import load_trained_model, losses_on, task_key, task_results
from curate.pipeline.plan_cells import PlannedCell
from curate.pipeline.references import References
from curate.runs.atomic import keep_others, replacing, write_json
from curate.runs.digests import digest_of_blocks
from curate.runs.keys import Key, fingerprint, read_key, write_key
from curate.tables.evaluation import SetLosses, read_evaluation, write_evaluation
from curate.tables.json_values import read_json
from curate.training.lora import train_adapter
from curate.types import BoolArray, CurateError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell.

    losses   by the name of the set
    tasks    results of lm-eval tasks
    cost     without the seconds of scoring and embedding, which cells share
    key      what it depends on, by name, as JSON holds it
    adapter  digest of its adapter's weights, where they are kept
    """

    losses: dict[str, Losses]
    tasks: list[TaskResult]
    cost: Cost
    key: dict[str, Any]
    adapter: str | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """What cell.json holds: fields of `CellResult`, and the digest of the evaluation.parquet that belongs to it."""

    key: dict[str, Any]
    cost: Cost
    tasks: list[TaskResult]
    digest: str
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedCell:
    """What the main process finds out about a cell before it is trained.

    done     whether it was finished before
    key      what its result depends on, by name
    rows     the records that it keeps, ascending
    trained  the cost of its adapter, where comparison/NAME holds it and only the evaluation changed; else None
    """

    done: bool
    key: dict[str, Any]
    rows: list[int] = field(default_factory=list)
    trained: Cost | None = None


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
        **task_key(job),
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
    work = _work(job, planned)
    if prepared.trained is not None:
        if job.is_main:
            logger.info("%s: trained before; evaluated again", planned.name)
            _evaluate(job, planned, prepared.key, prepared.trained, sets, cell_folder(job, planned) / "adapter")
        return
    cost = _train(job, planned, prepared.rows, steps)
    if job.is_main:  # all processes train; one evaluates
        _evaluate(job, planned, prepared.key, cost, sets, work / "adapter")
        shutil.rmtree(work)


def _prepare(job: Job, planned: PlannedCell, key: Key, kept: BoolArray) -> PreparedCell:
    """Look for the result or the adapter of an earlier call, else make the folder in which the cell is trained."""
    stored, rows, wanted = stored_result(job, planned), np.flatnonzero(kept).tolist(), json.loads(json.dumps(key))
    if stored is not None:
        adapter = _kept_adapter(job, planned, stored)
        if stored.key == wanted:
            if job.recipe.compare.keep_adapters and adapter is None:
                note = "%s was finished before without its adapter; delete comparison/%s to train it again"
                logger.warning(note, planned.name, planned.name)
            return PreparedCell(True, wanted)
        if adapter is not None and _of_training(stored.key) == _of_training(wanted):
            return PreparedCell(False, wanted, trained=stored.cost)
    work = _work(job, planned)
    if work.exists() and read_key(work) != key:
        shutil.rmtree(work)  # training would continue from the checkpoints of another key
    shutil.rmtree(work / "adapter", ignore_errors=True)  # a killed call may have left a half-written file in it
    write_key(work, key)
    return PreparedCell(False, dict(key), rows)


def _train(job: Job, planned: PlannedCell, rows: Sequence[int], steps: int | None) -> Cost:
    """Train an adapter on these rows with the seed of the cell, in work/; return what it cost."""
    features, _ = features_of(job, np.array(rows, np.int64))
    if not features:
        raise CurateError(f"{planned.name}: none of the kept records can be trained on")
    started, work = time.monotonic(), _work(job, planned)
    with training(job, work):
        result = train_adapter(
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
    tokens = np.array([int((np.asarray(labels) >= 0).sum()) for _, labels in features])
    return Cost(
        kept_records=len(features),
        kept_tokens=int(tokens.sum()),
        seen_tokens=round(result.steps * result.effective_batch_size * float(tokens.mean())),
        steps=result.steps,
        training_seconds=round(time.monotonic() - started, 1),
    )


def _evaluate(job: Job, planned: PlannedCell, key: Key, cost: Cost, sets: list[References], adapter: Path) -> None:
    """Evaluate the adapter, and write comparison/NAME as one folder: a cell is finished when it is there."""
    started, folder = time.monotonic(), cell_folder(job, planned)
    model = load_trained_model(job, adapter)
    losses = losses_on(job, model, sets, of=planned.name)
    tasks = task_results(job, model)
    cost = replace(cost, evaluation_seconds=round(time.monotonic() - started, 1))
    with replacing(folder) as temporary:
        temporary.mkdir()
        results = [SetLosses("adapter", name, losses[name]) for name in losses]
        write_evaluation(temporary / "evaluation.parquet", results)
        kept = None
        if job.recipe.compare.keep_adapters:
            shutil.copytree(adapter, temporary / "adapter")
            kept = digest_of_blocks(temporary / "adapter" / WEIGHTS)
        keep_others(folder, temporary, ours=("cell.json", "evaluation.parquet", "adapter"))
        stored = _Stored(dict(key), cost, tasks, digest_of_blocks(temporary / "evaluation.parquet"), kept)
        write_json(temporary / "cell.json", asdict(stored))


def stored_result(job: Job, planned: PlannedCell) -> CellResult | None:
    """Return the result of a finished cell; None if there is none, or if it is damaged or of another version."""
    folder = cell_folder(job, planned)
    try:
        about = read_json(folder / "cell.json", _Stored, "compare")
        if about.digest != digest_of_blocks(folder / "evaluation.parquet"):
            return None  # of another cell
        losses = {found.set: found.losses for found in read_evaluation(folder / "evaluation.parquet")}
        return CellResult(losses, about.tasks, about.cost, about.key, about.adapter)
    except (CurateError, OSError):  # damaged, or of another version: it is done again
        return None


def _kept_adapter(job: Job, planned: PlannedCell, stored: CellResult) -> Path | None:
    """Return the folder of the adapter of a finished cell; None where it was not kept, or is another one now."""
    adapter = cell_folder(job, planned) / "adapter"
    try:
        return adapter if stored.adapter == digest_of_blocks(adapter / WEIGHTS) else None
    except OSError:
        return None


def _of_training(key: Key) -> Key:
    """Return the part of a cell's key on which its adapter depends."""
    return {name: value for name, value in key.items() if name != "sets" and not name.startswith("evaluate.")}


def cell_folder(job: Job, planned: PlannedCell) -> Path:
    """Return the folder of a finished cell."""
    return job.folder.path / "comparison" / planned.name


def _work(job: Job, planned: PlannedCell) -> Path:
    return job.folder.work / f"cell-{planned.name}"
