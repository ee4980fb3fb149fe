"""Selects the records of every cell of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from curate.config import Select
from curate.pipeline.candidates import candidates
from curate.pipeline.job import Job
from curate.pipeline.plan_cells import PlannedCell
from curate.pipeline.selection import selection_rule
from curate.selection import Candidates, Rule, select
from curate.selection.bins import equal_bins
from curate.types import STATUSES, BoolArray

Kept = dict[str, BoolArray]
"""Which records a cell keeps, bool [N], by the name of the cell."""

_LENGTH_BINS = 50  # fine enough that the mean lengths agree, coarse enough that there is something to draw from


def kept_of_cells(job: Job, cells: Sequence[PlannedCell]) -> Kept:
    """Return which records every cell keeps; the baseline `all` keeps every eligible record.

    Raises:
        CurateError: a column is missing, or there are too few eligible records.
    """
    kept: Kept = {}
    # Cells that copy the lengths of another one come last: they need what that one keeps.
    for planned in sorted(cells, key=lambda planned: planned.lengths_of is not None):
        # For `all`, a selection of one record: its ranks show which records were eligible.
        chosen = planned.chosen or Select(method="random", keep=1, duplicates=job.recipe.select.duplicates)
        table, rule = candidates(job, chosen), selection_rule(chosen, seed=planned.cell.seed)
        if planned.lengths_of is not None:
            table, rule = with_lengths_of(kept[planned.lengths_of], table, rule)
        selection = select(table, rule)
        kept[planned.name] = selection.kept if planned.chosen else selection.rank >= 0
    return kept


def with_lengths_of(kept: BoolArray, table: Candidates, rule: Rule) -> tuple[Candidates, Rule]:
    """Return candidates and rule such that the selection has the distribution of response lengths of `kept`.

    The candidates are grouped by length; the quota of a group is the number of kept records in it.

    Args:
        kept: bool [N], the records whose lengths are copied.
        table: what is chosen from.
        rule: how it is chosen; without groups of its own.
    """
    scored = table.status == STATUSES.index("scored")
    bins, names = equal_bins(np.where(scored, table.response_tokens, np.nan), _LENGTH_BINS)
    counts = np.bincount(bins[kept], minlength=len(names)).tolist()
    return replace(table, groups=bins, group_names=names), replace(
        rule, group_quota=dict(zip(names, counts, strict=True))
    )
