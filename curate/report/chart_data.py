"""Computes the numbers that charts show: bins, levels and labels, as rows of plain JSON values."""

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
_SKEWED = 20  # largest score / median score from which a log scale is used
_MAX_LABELS = 14  # names on a map: more of them hide the points


def histogram(score: FloatArray, kept: npt.NDArray[np.bool_]) -> Rows:
    """Return the bins of a score: from, to, set (kept or not kept), records, percent.

    Percent is the share of the set's scored records, so that sets of different size can be compared. The bins cover all
    scores. Those of a skewed score are equally wide on a log scale. If all scores are equal, or there are none, there
    are no bins.

    Args:
        score: float64 [N], NaN where a record has none.
        kept: bool [N].
    """
    there = np.isfinite(score)
    if not there.any() or score[there].min() == score[there].max():
        return []
    low, high = float(score[there].min()), float(score[there].max())
    edges = np.geomspace(low, high, _BINS + 1) if is_skewed(score) else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace rounds, and would leave out the lowest or the highest score
    rows = []
    for name, inside in ((KEPT, there & kept), (OTHERS, there & ~kept)):
        counts = np.histogram(score[inside], edges)[0]
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
            percent = 100 * count / max(int(counts.sum()), 1)  # 0 in an empty set
            rows.append({"from": low, "to": high, "set": name, "records": count, "percent": round(percent, 3)})
    return rows


def is_skewed(score: FloatArray) -> bool:
    """Return whether a score needs a log scale: all values are positive, and the largest is over 20 times the median.

    On a linear scale, a few such values would press all others into one bar.

    >>> is_skewed(np.array([1.0, 1.1, np.nan, 90.0])), is_skewed(np.array([0.0, 1.0, 90.0]))
    (True, False)
    """
    there = score[np.isfinite(score)]
    return bool(len(there) and there.min() > 0 and there.max() > _SKEWED * np.median(there))


def exit_levels(table: RunTable) -> Rows:
    """Return the confidence at every exit of easy, middle and hard records: exit, level, median, low, high.

    Easy, middle and hard are the thirds of the scored records by complexity. Half of their records lie between low and
    high, the quartiles. If complexity was not scored, there are no rows.
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
    """Return the clusters of a map, the largest first: x, y, cluster, name, records, label, narrow.

    `label` is shown on a wide map, `narrow` on a phone. They are "" if the label of a larger cluster is too near.

    Args:
        centres: x, y and number of records of every cluster.
        names: names of the clusters; a cluster without one is called by its number.
    """
    clusters = sorted(centres, key=lambda cluster: (-centres[cluster][2], cluster))
    xy = np.array([centres[cluster][:2] for cluster in clusters]).reshape(-1, 2)
    # In units of the map's width and height; 1e-9 is for clusters that all lie in one point.
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
    """Return the indices of the labels that touch no earlier one; `places` are in units of the map."""
    taken: list[int] = []
    for i, (x, y) in enumerate(places):
        free = all(abs(x - places[j][0]) > width or abs(y - places[j][1]) > height for j in taken)
        if free and len(taken) < _MAX_LABELS:
            taken.append(i)
    return set(taken)
