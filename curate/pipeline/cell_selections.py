"""What every cell of a comparison keeps."""

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

_LENGTH_BINS = 50  # fine enough that the mean lengths agree, coarse enough that there is something to draw from


def kept_of_cells(job: Job, cells: Sequence[PlannedCell]) -> Kept:
    """Return the records of every cell, bool [N], by the cell's name; of the baseline `all`, those that can be kept.

    Raises:
        CurateError: a column that is not there, or too few eligible records.
    """
    kept: Kept = {}
    for planned in sorted(cells, key=lambda planned: planned.lengths_of is not None):  # after those that they follow
        chosen = planned.chosen or Select(method="random", keep=1, duplicates=job.recipe.select.duplicates)
        table, rule = candidates(job, chosen), selection_rule(chosen, seed=planned.cell.seed)
        if planned.lengths_of is not None:
            table, rule = with_lengths_of(kept[planned.lengths_of], table, rule)
        selection = select(table, rule)
        kept[planned.name] = selection.kept if planned.chosen else selection.rank >= 0
    return kept


def with_lengths_of(kept: BoolArray, table: Candidates, rule: Rule) -> tuple[Candidates, Rule]:
    """Return the table in groups of about equal response length, and the rule with a quota for each: as many as kept.

    Args:
        kept: bool [N], the records whose lengths are matched.
        table: what is chosen from.
        rule: how; it has no groups of its own.
    """
    scored = table.status == STATUSES.index("scored")
    bins, names = equal_bins(np.where(scored, table.response_tokens, np.nan), _LENGTH_BINS)
    counts = np.bincount(bins[kept], minlength=len(names)).tolist()
    return replace(table, groups=bins, group_names=names), replace(
        rule, group_quota=dict(zip(names, counts, strict=True))
    )
