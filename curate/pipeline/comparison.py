"""The comparison: runs all cells (selector x number kept x seed), and writes comparison.json and comparison.parquet."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curate.compare.cells import LOSS_OVER_RECORDS, LOSS_OVER_TOKENS, UNTUNED, Cell, Cost, Measurement
from curate.compare.comparison import Comparison
from curate.compare.table import table_rows
from curate.evaluation.summary import ByRecord, Losses, summarize
from curate.evaluation.task_results import TaskResult
from curate.pipeline.cell import cell_key, run_cell, stored_result
from curate.pipeline.cell_selections import Kept, kept_of_cells
from curate.pipeline.clusters import cluster
from curate.pipeline.job import Job
from curate.pipeline.losses import untuned_losses, untuned_tasks
from curate.pipeline.needed import needs_embeddings, score_stages
from curate.pipeline.observations import observe
from curate.pipeline.plan_cells import PlannedCell, planned_cells, selects_of
from curate.pipeline.references import References, references
from curate.runs.atomic import replacing, write_json
from curate.runs.digests import digest_of_blocks
from curate.runs.folder import COMPARISON
from curate.tables.comparison import write_comparison
from curate.tables.json_values import as_json
from curate.tables.score_columns import read_rows
from curate.types import IntArray

logger = logging.getLogger(__name__)

_RECORDS_PER_STEP = 16  # of an optimizer step, by the defaults of train.*


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process finds out before the first cell.

    sets   what every cell is evaluated on
    steps  optimizer steps of every cell by its name; None where it trains for train.epochs
    """

    sets: list[References]
    steps: dict[str, int | None]


def compare(job: Job) -> Comparison | None:
    """Run all cells and write the table; return the comparison in the main process, None in the others.

    Finished cells are skipped. Cells of selectors that are no longer asked for stay on disk.

    Raises:
        CurateError: a selector reads a score that is missing; selecting, training or evaluation is refused.
    """
    layers = num_layers(job)
    cells = planned_cells(job.recipe, num_layers=layers)
    kept: Kept = {}

    def prepare() -> Prepared:
        with job.launch.busy("selecting for every cell"):
            if any(needs_embeddings(chosen) for chosen in selects_of(job.recipe, num_layers=layers)):
                cluster(job)
            kept.update(kept_of_cells(job, cells))  # all cells first: a wrong one is refused before any is trained
            lengths = read_rows(job.folder.path / "scores.parquet").response_tokens.astype(np.int64)
            return Prepared(references(job), _steps(job, cells, kept, lengths))

    prepared = job.launch.from_main("comparison", prepare, Prepared)
    to_do = {planned.name for planned in cells if job.is_main and not _is_finished(job, planned, kept, prepared)}
    seconds: list[float] = []
    for number, planned in enumerate(cells, start=1):
        if job.is_main:
            left = _time_left(seconds, len(to_do) - len(seconds)) if planned.name in to_do else ""
            logger.info("cell %d of %d: %s%s", number, len(cells), planned.name, left)
        started = time.monotonic()
        run_cell(job, planned, kept.get(planned.name), prepared.steps[planned.name], prepared.sets)
        if planned.name in to_do:
            seconds.append(time.monotonic() - started)
    return _publish(job, cells, kept, prepared.sets) if job.is_main else None


def num_layers(job: Job) -> int:
    """Return the decoder layers of the scoring model."""
    model = job.recipe.model
    return int(job.loaded.config(model.name, model.revision).get_text_config().num_hidden_layers)


def _steps(job: Job, cells: Sequence[PlannedCell], kept: Kept, lengths: IntArray) -> dict[str, int | None]:
    """Return the optimizer steps of every cell by its name, as compare.budget says.

    steps   train.max_steps, or as many as train.epochs make with the number of records kept. Cells that keep equally
            many get equally many steps; the baseline of all records gets those of the first number in compare.keep
    epochs  None: every cell trains for train.epochs
    tokens  as `steps`, then scaled so that cells with longer records see no more response tokens than others
    """
    train, budget = job.recipe.train, job.recipe.compare.budget
    if budget == "epochs":
        return {planned.name: None for planned in cells}
    steps: dict[str, int | None] = {}
    of_keep: dict[str, int] = {}
    for planned in cells:
        size = int(kept[planned.name].sum())
        own = train.max_steps or math.ceil(size / _RECORDS_PER_STEP * train.epochs)
        of_keep.setdefault(planned.cell.keep, own)
    mean_length = lengths[lengths > 0].mean()  # of all records that have a response
    for planned in cells:
        mask = kept[planned.name]
        number = of_keep[planned.cell.keep] if planned.chosen else next(iter(of_keep.values()))
        if budget == "tokens":
            number = max(1, round(number * float(mean_length) / float(lengths[mask].mean())))
        steps[planned.name] = number
    return steps


def _is_finished(job: Job, planned: PlannedCell, kept: Kept, prepared: Prepared) -> bool:
    """Return whether an earlier call finished this cell, with all that it depends on as it is now."""
    stored, name = stored_result(job, planned), planned.name
    key = cell_key(job, planned, kept[name], prepared.steps[name], prepared.sets)
    return stored is not None and stored.key == json.loads(json.dumps(key))


def _time_left(seconds: Sequence[float], left: int) -> str:
    """Return in words how long `left` cells will take, if each takes as long as those that this call did.

    >>> _time_left([500.0, 460.0], 3), _time_left([20.0], 2), _time_left([], 3)
    (', about 24 min left', ', less than a minute left', '')
    """
    if not seconds:
        return ""
    minutes = left * sum(seconds) / len(seconds) / 60
    if minutes < 1:
        return ", less than a minute left"
    return f", about {minutes:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


def _publish(job: Job, cells: Sequence[PlannedCell], kept: Kept, sets: list[References]) -> Comparison:
    """Collect the results of all cells and of the untuned model, and write both files of the comparison."""
    measurements: list[Measurement] = []
    for planned in cells:
        result = stored_result(job, planned)
        assert result is not None, "every cell is done"
        cost = _shared_cost(job, planned, result.cost)
        measurements += _measurements(planned.cell, result.losses, result.tasks, cost)
    if "untuned" in job.recipe.compare.baselines:
        measurements += _measurements(Cell(UNTUNED, "", 0), untuned_losses(job, sets), untuned_tasks(job), Cost())
    observed, reference = observe(job, cells, kept), job.recipe.compare.reference
    comparison = replace(observed, rows=tuple(table_rows(measurements, reference=reference)))
    path = job.folder.path
    with replacing(path / "comparison.parquet") as temporary:
        write_comparison(temporary, measurements)
    write_json(path / COMPARISON, as_json(comparison))
    job.folder.describe(comparison={COMPARISON: digest_of_blocks(path / COMPARISON)})
    logger.info("comparison: %d cells, %s", len(cells), path / COMPARISON)
    return comparison


def _measurements(
    cell: Cell, losses: Mapping[str, Losses], tasks: Sequence[TaskResult], cost: Cost
) -> Iterator[Measurement]:
    """Yield the measurements of a cell: both means of its losses on every set, and the results of its tasks."""
    for name, found in losses.items():
        sums, ones = summarize(found), np.ones(len(found.loss))
        # Both means, always: they differ, and long responses weigh more in the second.
        for metric, value, weights in (
            (LOSS_OVER_RECORDS, sums.mean_over_records, ones),
            (LOSS_OVER_TOKENS, sums.mean_over_tokens, found.tokens.astype(np.float64)),
        ):
            by_record = ByRecord(found.loss, weights)
            yield Measurement(cell, name, metric, value, sums.records, cost=cost, by_record=by_record)
    for task in tasks:
        better, examples = task.higher_is_better, task.by_record
        yield Measurement(cell, task.task, task.metric, task.value, task.samples, task.stderr, better, cost, examples)


def _shared_cost(job: Job, planned: PlannedCell, cost: Cost) -> Cost:
    """Return a cell's cost with the seconds of the scores and embeddings that its selection reads.

    They are counted in full for every cell, though they were computed once: a person with one selection pays them all.
    """
    if planned.chosen is None:
        return cost
    scoring = _seconds(job, score_stages(planned.chosen))
    embedding = _seconds(job, ["embeddings", "clusters"]) if needs_embeddings(planned.chosen) else None
    return replace(cost, scoring_seconds=scoring, embedding_seconds=embedding)


def _seconds(job: Job, stages: Sequence[str]) -> float | None:
    records = [record for stage in stages if (record := job.folder.stage(stage)) is not None]
    return round(sum(record["seconds"] for record in records), 1) if records else None
