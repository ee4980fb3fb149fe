"""What a comparison reports beside its table: overlaps, lengths, rank correlations, agreement with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.compare.comparison import Comparison
from curate.compare.labels import Agreement, Label, agreement, kept_shares, read_labels
from curate.compare.statistics import length_statistics, overlaps, rank_correlations
from curate.pipeline.cell_selections import Kept
from curate.pipeline.environment import environment
from curate.pipeline.job import Job
from curate.pipeline.plan_cells import PlannedCell
from curate.read.files import read_records
from curate.tables.score_columns import read_column, read_rows, score_columns
from curate.types import FloatArray, IntArray

# The scores of which a low value means easy. Of every other score, a person's own among them, a high value comes first.
_LOWEST_FIRST = {"complexity", "perplexity", "masked_loss", "prompt_tokens", "response_tokens"}


def observe(job: Job, cells: Sequence[PlannedCell], kept: Kept) -> Comparison:
    """Return a comparison without its table: what the scores and the selections of the first seed tell by themselves.

    Args:
        job: the job.
        cells: the cells of the comparison.
        kept: bool [N] by the name of the cell.
    """
    path = job.folder.path / "scores.parquet"
    lengths = read_rows(path).response_tokens.astype(np.int64)
    scores = {name: read_column(path, name) for name in score_columns(path)}
    # `select` by length or at random leaves the columns of complexity empty; nothing correlates with them.
    scores = {name: score for name, score in scores.items() if np.isfinite(score).any()}
    first = {planned.cell.seed for planned in cells[:1]}
    chosen = [planned for planned in cells if planned.chosen is not None and planned.cell.seed in first]
    by_keep = {
        keep: {p.cell.selector: kept[p.name] for p in chosen if p.cell.keep == keep}
        for keep in dict.fromkeys(p.cell.keep for p in chosen)
    }
    labels = [label for field in job.recipe.compare.labels for label in _labels(job, field, len(lengths))]
    of_first_keep = next(iter(by_keep.values()), {})
    return Comparison(
        rows=(),
        overlaps={keep: overlaps(masks) for keep, masks in by_keep.items()},
        lengths={
            keep: {name: length_statistics(lengths, mask) for name, mask in masks.items()}
            for keep, masks in by_keep.items()
        },
        rank_correlations=rank_correlations(scores),
        agreements=_agreements(labels, scores, lengths) if labels else {},
        kept_shares={
            name: {label.name: tuple(kept_shares(label, mask)) for label in labels}
            for name, mask in of_first_keep.items()
        },
        about=_about(job),
    )


def _labels(job: Job, field: str, num_rows: int) -> list[Label]:
    """Return the labels in a field of the records. A record that could not be read has none."""
    # From the input: labels are fields of the records, and the tables of a run do not repeat these.
    values: list[Any] = [None] * num_rows
    for record in read_records(job.settled.source, job.recipe.data):
        values[record.row] = None if record.fields is None else record.fields.get(field)
    return read_labels(field, values)


def _agreements(
    labels: Sequence[Label], scores: dict[str, FloatArray], lengths: IntArray
) -> dict[str, tuple[Agreement, ...]]:
    return {
        name: tuple(
            agreement(label, score, lengths, order="lowest" if name in _LOWEST_FIRST else "highest") for label in labels
        )
        for name, score in scores.items()
    }


def _about(job: Job) -> dict[str, Any]:
    """Return what a reader needs to repeat the comparison, without any path of this machine."""
    recipe = job.recipe
    return {
        "compare": recipe.compare.model_dump(mode="json"),
        "train": recipe.train.model_dump(mode="json", exclude={"model", "revision", "report_to"}),
        "prompt": recipe.prompt.model_dump(mode="json"),
        "score.exits": job.settled.scores_key.get("score.exits"),
        "records": _records(job),
        **{name: value for name, value in environment(recipe).items() if name in ("versions", "seed", "device")},
    }


def _records(job: Job) -> dict[str, Any]:
    record = job.folder.stage("tokens")
    return {} if record is None else {"in": record["in"], "out": record["out"], "dropped": record["dropped"]}
