"""Makes the tables of a report: costs, settings, and what became of every cluster and group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.report.run_table import RunTable
from curate.runs.manifest import StageRecord
from curate.types import IntArray

# The sections of a recipe that decide what is kept, or how it is trained on.
_SCORING_SECTIONS = ("data", "prompt", "model", "score", "embed", "cluster", "select", "train")


@dataclass(frozen=True, slots=True)
class Part:
    """One cluster or one group.

    name        its name
    number      its number
    records     number of input records
    eligible    how many of them could be kept
    quota       how many of them were to be kept; None if quotas were not set by cluster, or by group
    kept        how many of them are kept
    score       median of the selection's score over the records; None if no record has one
    kept_score  the same over the kept records
    """

    name: str
    number: int
    records: int
    eligible: int
    quota: int | None
    kept: int
    score: float | None
    kept_score: float | None


def parts(table: RunTable, codes: npt.NDArray[np.int32], names: Mapping[int, str], *, has_quota: bool) -> list[Part]:
    """Return one Part for every code that occurs, in ascending order.

    Args:
        table: a run and a selection.
        codes: int32 [N], cluster or group of every row; rows with a negative code are in no part.
        names: names of the codes; a code without one is called by its number.
        has_quota: whether quotas were set for these parts. The quota is then what was kept, since a selection fills its
            quotas exactly.
    """
    order = np.argsort(codes, kind="stable")
    found = []
    # One sort and slices; a mask per cluster would read all rows once per cluster.
    starts = np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 2))
    for code, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        if start < end:
            found.append(_part(table, order[start:end], names.get(code, str(code)), code, has_quota=has_quota))
    return found


def _part(table: RunTable, rows: IntArray, name: str, code: int, *, has_quota: bool) -> Part:
    """Return the figures of the part with these rows."""
    kept = rows[table.kept[rows]]
    return Part(
        name,
        code,
        len(rows),
        int(np.count_nonzero(table.rank[rows] >= 0)),
        len(kept) if has_quota else None,
        len(kept),
        _median(table.score[rows]),
        _median(table.score[kept]),
    )


def strata_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the strata of a selection are made of: clusters, groups, both or neither.

    >>> strata_of({"method": "clusters"}), strata_of({"method": "top"})
    (('cluster',), ())
    """
    by_cluster = ("cluster",) if settings.get("method", "clusters") == "clusters" else ()
    return (*by_cluster, *(("group",) if settings.get("groups") else ()))


def dropped(table: RunTable) -> list[tuple[str, int]]:
    """Return how many records were not kept, by reason, the most frequent first."""
    counts = np.bincount(table.reason.codes[~table.kept], minlength=len(table.reason.names)).tolist()
    pairs = [(name, count) for name, count in zip(table.reason.names, counts, strict=True) if count]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def costs(stages: Mapping[str, StageRecord], selection: str) -> list[tuple[str, int, int, float]]:
    """Return name, records in, records out and seconds of every finished stage, in the order of the manifest.

    Stages of other selections are left out.
    """
    mine = f"selections/{selection}"
    return [
        (name, int(stage["in"]), int(stage["out"]), float(stage["seconds"]))
        for name, stage in stages.items()
        if {"in", "out", "seconds"} <= stage.keys()
        # The slash at the end keeps selection "a" from matching "ab".
        and (not name.startswith("selections/") or f"{name}/".startswith(f"{mine}/"))
    ]


def settings_lines(recipe: Mapping[str, Any], sections: Sequence[str] = _SCORING_SECTIONS) -> list[tuple[str, str]]:
    """Return the settings of these sections as pairs of `section.key` and value; unset ones are left out.

    Of an absolute path only the last part is shown, since a report is passed on to others.
    """
    lines = []
    for section in sections:
        for key, value in (recipe.get(section) or {}).items():
            if value is not None and value != {} and value != []:
                lines.append((f"{section}.{key}", _shown(value)))
    return lines


def _shown(value: Any) -> str:
    """Return a setting as text, as it would be typed on the command line."""
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    return str(value)


def _median(values: npt.NDArray[Any]) -> float | None:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else None
