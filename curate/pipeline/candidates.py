"""What a selection chooses from, read from the run folder; `select` and `compare` choose from the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from curate.config import Groups, Select
from curate.pipeline.job import Job
from curate.pipeline.needed import BY_SCORE, is_binned_column, needs_embeddings, passes_of
from curate.pipeline.verified import verified_clusters, verified_embeddings, verified_rows
from curate.read.files import read_records
from curate.selection import Candidates, holdout_rows, keep_count
from curate.selection.bins import equal_bins
from curate.tables.score_columns import Rows, read_column, score_columns
from curate.types import STATUSES, BoolArray, CurateError, FloatArray, IntArray


def candidates(job: Job, chosen: Select) -> Candidates:
    """Read what a selection needs to know of every record.

    At random, by length and by distance no score is read.

    Raises:
        CurateError: a column that is not there, with the command that makes it.
    """
    by = chosen.by if chosen.method in BY_SCORE else "response_tokens"
    within, embedded = chosen.within, needs_embeddings(chosen)
    rows = verified_rows(job)
    names = {*within, by} - {"random"}
    columns = {name: _column(job, name, exits=None, setting=f"select.within.{name}") for name in sorted(names - {by})}
    if by in names:
        columns[by] = _column(job, by, exits=chosen.exits, setting="select.by")
    codes, group_names = (None, ()) if chosen.groups is None else _groups(job, chosen.groups, len(rows.status))
    return Candidates(
        rows.status,
        rows.response_tokens,
        columns,
        clusters=verified_clusters(job, len(rows.status), needed=embedded),
        duplicate_ids=rows.duplicate_ids,
        groups=codes,
        group_names=group_names,
        embeddings=verified_embeddings(job) if embedded else None,
        held_out=held_out(job, rows),
    )


def held_out(job: Job, rows: Rows | None = None) -> BoolArray | None:
    """Return which rows data.holdout keeps out of every selection, bool [N]; None without a holdout."""
    holdout = job.recipe.data.holdout
    if holdout == 0:
        return None
    if rows is None:
        rows = verified_rows(job)
    return holdout_rows(
        len(rows.status),
        keep_count(holdout, len(rows.status)),
        seed=job.recipe.run.seed,
        eligible=rows.status == STATUSES.index("scored"),
        duplicate_ids=rows.duplicate_ids,
    )


def count_statuses(job: Job) -> dict[str, int]:
    """Return how many records have each status: a pool is another one once scoring has refused some."""
    counts = np.bincount(verified_rows(job).status, minlength=len(STATUSES)).tolist()
    return {name: count for name, count in zip(STATUSES, counts, strict=True) if count}


def _column(job: Job, name: str, *, exits: tuple[int, ...] | None, setting: str) -> FloatArray:
    path = job.folder.path / "scores.parquet"
    there = score_columns(path)
    if name not in there:
        made_by = passes_of({name}) - {"complexity"}
        if passes_of({name}) == {"complexity"}:
            raise CurateError(f"{job.folder.path} holds no scores yet: run curate score (or curate run)")
        how = f": run curate score with score.{made_by.pop()}=true" if made_by else f"; there are {', '.join(there)}"
        raise CurateError(f"{setting}: {job.folder.path} has no score column {name}{how}")
    return read_column(path, name, exits=exits)


def _groups(job: Job, groups: Groups, num_rows: int) -> tuple[IntArray, tuple[str, ...]]:
    """Return the group of every record, -1 where it has none, and the names of the groups."""
    if groups.bins is None:
        return _values(job, groups.field, num_rows)
    if is_binned_column(groups):
        return equal_bins(_column(job, groups.field, exits=None, setting="select.groups.field"), groups.bins)
    return equal_bins(_numbers(job, groups.field, num_rows), groups.bins)


def _values(job: Job, field: str, num_rows: int) -> tuple[IntArray, tuple[str, ...]]:
    """Return the value of a field as a code for every record, -1 where there is none; names by first appearance."""
    codes, names = np.full(num_rows, -1, np.int64), dict[str, int]()
    for row, value in _field(job, field, num_rows):
        name = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        codes[row] = names.setdefault(name, len(names))
    if not names:
        raise CurateError(f"select.groups: no record has the field {field}")
    return codes, tuple(names)


def _numbers(job: Job, field: str, num_rows: int) -> FloatArray:
    """Return the numbers in a field, float64 [N], NaN where there is none; text counts where it spells a number."""
    numbers = np.full(num_rows, np.nan)
    for row, value in _field(job, field, num_rows):
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                numbers[row] = float(value)
    if not np.isfinite(numbers).any():
        raise CurateError(f"select.groups.bins: no record has a number in the field {field}")
    return numbers


def _field(job: Job, field: str, num_rows: int) -> Iterator[tuple[int, Any]]:
    """Yield row and value of every record that has the field."""
    for record in read_records(job.settled.source, job.recipe.data):
        value = None if record.fields is None else record.fields.get(field)
        if value is not None:
            yield record.row, value
        job.launch.advance("groups", record.row + 1, num_rows, "records")
