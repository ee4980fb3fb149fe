"""The numbers that charts show: bins, levels and labels, as rows of plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.report.run_table import RunTable
from curate.types import FloatArray

Rows = list[dict[str, Any]]

KEPT, OTHERS = "kept", "not kept"
LEVELS = ("easy", "middle", "hard")
_BINS = 40
_SKEWED = 20
_MAX_LABELS = 14


def histogram(score: FloatArray, kept: npt.NDArray[np.bool_]) -> Rows:
    """Return the bins of a score: from, to, set (kept or not), records, and percent of the set's scored records.

    The range is that of all scores; without two different scores there are no bins. The bins of a skewed score are
    equally wide on a log scale.
    """
    there = np.isfinite(score)
    if not there.any() or score[there].min() == score[there].max():
        return []
    low, high = float(score[there].min()), float(score[there].max())
    edges = np.geomspace(low, high, _BINS + 1) if is_skewed(score) else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace rounds
    rows = []
    for name, inside in ((KEPT, there & kept), (OTHERS, there & ~kept)):
        counts = np.histogram(score[inside], edges)[0]
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
            percent = 100 * count / max(int(counts.sum()), 1)
            rows.append({"from": low, "to": high, "set": name, "records": count, "percent": round(percent, 3)})
    return rows


def is_skewed(score: FloatArray) -> bool:
    """Return whether a score belongs on a log scale: all positive, and the largest 20 times the median.

    On a linear scale a few such values would press all others into one bar.

    >>> is_skewed(np.array([1.0, 1.1, np.nan, 90.0])), is_skewed(np.array([0.0, 1.0, 90.0]))
    (True, False)
    """
    there = score[np.isfinite(score)]
    return bool(len(there) and there.min() > 0 and there.max() > _SKEWED * np.median(there))


def exit_levels(table: RunTable) -> Rows:
    """Return confidence by exit of easy, middle and hard records: exit, level, median, and the middle half of them.

    Easy, middle and hard are the thirds of the scored records by complexity. Without complexity there are none.
    """
    if not table.exits:
        return []
    scored = np.flatnonzero(np.isfinite(table.scores["complexity"]))
    thirds = np.array_split(scored[np.argsort(table.scores["complexity"][scored], kind="stable")], len(LEVELS))
    rows = []
    for level, members in zip(LEVELS, thirds, strict=True):
        if len(members):
            low, middle, high = np.quantile(table.confidence[members], [0.25, 0.5, 0.75], axis=0).round(4).tolist()
            rows += [
                {"exit": k, "level": level, "median": middle[i], "low": low[i], "high": high[i]}
                for i, k in enumerate(table.exits)
            ]
    return rows


def map_labels(centres: Mapping[int, tuple[float, float, int]], names: Mapping[int, str]) -> Rows:
    """Return the clusters of a map, the largest first, each with its centre and, where there is room, a label.

    `label` is for a wide map, `narrow` for one on a phone; both are "" where a larger cluster's label is too near.

    Args:
        centres: x, y and number of records by cluster.
        names: of clusters.
    """
    clusters = sorted(centres, key=lambda cluster: (-centres[cluster][2], cluster))
    xy = np.array([centres[cluster][:2] for cluster in clusters]).reshape(-1, 2)
    places = (xy / np.maximum(np.ptp(xy, axis=0), 1e-9)).tolist() if len(xy) else []
    labels, narrow = _with_room(places, width=0.3, height=0.07), _with_room(places, width=0.9, height=0.11)
    rows = []
    for i, cluster in enumerate(clusters):
        x, y, records = centres[cluster]
        name = names.get(cluster, str(cluster))
        row = {"x": x, "y": y, "cluster": cluster, "name": name, "records": records}
        rows.append({**row, "label": name if i in labels else "", "narrow": name if i in narrow else ""})
    return rows


def _with_room(places: list[list[float]], *, width: float, height: float) -> set[int]:
    """Which labels can stand at these places (in units of the map) without touching an earlier one."""
    taken: list[int] = []
    for i, (x, y) in enumerate(places):
        free = all(abs(x - places[j][0]) > width or abs(y - places[j][1]) > height for j in taken)
        if free and len(taken) < _MAX_LABELS:
            taken.append(i)
    return set(taken)
