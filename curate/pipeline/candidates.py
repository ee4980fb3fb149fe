"""Reads what a selection chooses from. `select` and `compare` both use it, and so choose from the same records."""

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
    """Return what a selection needs to know of every record: status, lengths, the columns that it reads, clusters.

    Args:
        job: the job.
        chosen: the section `select` of the selection.

    Raises:
        CurateError: a column is missing (it names the command that makes it); a table of the run is damaged.
    """
    # Methods with an order of their own read no score, and so need none.
    by = chosen.by if chosen.method in BY_SCORE else "response_tokens"
    within, embedded = chosen.within, needs_embeddings(chosen)
    rows = verified_rows(job.folder)
    names = {*within, by} - {"random"}
    columns = {name: _column(job, name, exits=None, setting=f"select.within.{name}") for name in sorted(names - {by})}
    if by in names:  # select.exits recomputes only the score that is ordered by
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
    """Return which rows data.holdout keeps out of every selection, bool [N]; None without a holdout.

    Drawn with run.seed and never with select.seed, so that all selections of a run are evaluated on the same records.
    """
    holdout = job.recipe.data.holdout
    if holdout == 0:
        return None
    if rows is None:
        rows = verified_rows(job.folder)
    return holdout_rows(
        len(rows.status),
        keep_count(holdout, len(rows.status)),
        seed=job.recipe.run.seed,
        eligible=rows.status == STATUSES.index("scored"),
        duplicate_ids=rows.duplicate_ids,
    )


def count_statuses(job: Job) -> dict[str, int]:
    """Return how many records have each status. A selection depends on it: scoring changes some of them."""
    counts = np.bincount(verified_rows(job.folder).status, minlength=len(STATUSES)).tolist()
    return {name: count for name, count in zip(STATUSES, counts, strict=True) if count}


def _column(job: Job, name: str, *, exits: tuple[int, ...] | None, setting: str) -> FloatArray:
    """Return a score column, float64 [N]; recomputed from these exits if there are any.

    Raises:
        CurateError: there is no such column; `setting` is what asks for it.
    """
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
    """Return a code for the value that every record has in a field, -1 without one, and the values by their codes."""
    codes, names = np.full(num_rows, -1, np.int64), dict[str, int]()
    for row, value in _field(job, field, num_rows):
        # Lists and numbers are groups too, by their JSON; sorted, since the order of keys means nothing.
        name = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        codes[row] = names.setdefault(name, len(names))
    if not names:
        raise CurateError(f"select.groups: no record has the field {field}")
    return codes, tuple(names)


def _numbers(job: Job, field: str, num_rows: int) -> FloatArray:
    """Return the numbers in a field, float64 [N]; NaN without one. The text "3" counts as a number (CSV has only text).

    Raises:
        CurateError: no record has a number there.
    """
    numbers = np.full(num_rows, np.nan)
    for row, value in _field(job, field, num_rows):
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):  # True is an int in Python
            with contextlib.suppress(ValueError, OverflowError):
                numbers[row] = float(value)
    if not np.isfinite(numbers).any():
        raise CurateError(f"select.groups.bins: no record has a number in the field {field}")
    return numbers


def _field(job: Job, field: str, num_rows: int) -> Iterator[tuple[int, Any]]:
    """Yield row and value of every record that has the field; the input is read for it."""
    for record in read_records(job.settled.source, job.recipe.data):
        value = None if record.fields is None else record.fields.get(field)
        if value is not None:
            yield record.row, value
        job.launch.advance("groups", record.row + 1, num_rows, "records")
