"""Makes the charts of a report as Vega-Lite specifications: plain JSON values that include their data.

No chart relies on colour alone: kept bars have outlines, kept points are larger, lines have different dashes, and
verdicts have different shapes. Marks have "aria" off: the page describes a chart as a whole, and a screen reader would
otherwise read out every bar and point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.report.chart import HEIGHT, LEGEND, Spec, axis, chart, colour, field, number
from curate.report.chart_data import KEPT, LEVELS, OTHERS, Rows, is_skewed, map_labels
from curate.report.projection import Projection
from curate.report.run_table import RunTable
from curate.types import IntArray

_NAMES = {
    "complexity": "complexity (0 easy, 1 hard)",
    "perplexity": "perplexity (1 easy, higher is harder)",
    "ifd": "ifd (high: the instruction helps little)",
    "masked_loss": "masked loss (nats per token, low is easy)",
    "dropout_confidence": "dropout confidence (0 hard, 1 easy)",
    "log_prob_alone": "log prob alone (nats per token)",
}


def axis_title(score: str) -> str:
    """Return the title of an axis for a score: its name, and its unit or direction if that is known."""
    return _NAMES.get(score, score.replace("_", " "))


def histogram_figure(rows: Rows, score: str) -> Spec:
    """Return the chart of the bins from `histogram`: one set of bars for the kept records, one for the others."""
    tooltip = [field("set", "nominal", "records"), number("from"), number("to"), number("percent", ".1f", "% of set")]
    # The bins themselves say whether the score is skewed: their widths then grow.
    log = {"scale": {"type": "log", "nice": False}} if _grows(rows) else {}
    x: Spec = {"field": "from", "type": "quantitative", "title": axis_title(score), **axis(grid=False), **log}
    y = {"field": "percent", "type": "quantitative", "stack": None, "title": "percent of each set"}
    colours = colour("set", (KEPT, OTHERS), ("var(--kept)", "var(--others)"))
    colours["legend"] = {**LEGEND, "symbolStrokeWidth": 0}
    shared: Spec = {
        "x": {**x, "bin": {"binned": True}},
        "x2": {"field": "to"},
        "y": y,
        "color": colours,
        "tooltip": tooltip,
    }
    bars: Spec = {"type": "bar", "aria": False, "binSpacing": 0}
    # The kept records are drawn last, on top of the others.
    looks: tuple[tuple[str, Spec], ...] = (
        (OTHERS, {"fillOpacity": 0.5}),
        (KEPT, {"fillOpacity": 0.3, "stroke": "var(--kept)", "strokeWidth": 1.5}),
    )
    layers: list[Spec] = [
        {
            "mark": {**bars, **look},
            "transform": [{"filter": f"datum.set === '{name}' && datum.records > 0"}],
            "encoding": shared,
        }
        for name, look in looks
    ]
    return chart(rows, HEIGHT, layer=layers)


def _grows(rows: Rows) -> bool:
    widths = [row["to"] - row["from"] for row in rows[:2]]
    return len(widths) == 2 and widths[1] > 1.001 * widths[0]


def exits_figure(rows: Rows) -> Spec:
    """Return the chart of the rows from `exit_levels`: a line per level, and a band for the middle half of them."""
    x = {"field": "exit", "type": "quantitative", "title": "exit (layer)", **axis(grid=False, whole=True)}
    y = {"type": "quantitative", "title": "confidence (mean probability of a token)"}
    levels = colour("level", LEVELS, ("var(--easy)", "var(--middle)", "var(--hard)"))
    levels["legend"] = {**LEGEND, "symbolType": "stroke", "symbolSize": 240}
    dashes = {"domain": list(LEVELS), "range": [[1, 0], [6, 3], [2, 3]]}
    tooltip = [field("level", "nominal"), number("exit", "d"), number("median"), number("low"), number("high")]
    band = {
        "mark": {"type": "area", "opacity": 0.14, "aria": False},
        "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": levels},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 34}, "aria": False},
        "encoding": {
            "x": x,
            "y": {"field": "median", **y},
            "color": levels,
            "strokeDash": {**levels, "scale": dashes},
            "tooltip": tooltip,
        },
    }
    return chart(rows, HEIGHT, layer=[band, line])


def length_figure(table: RunTable, rows: IntArray) -> Spec:
    """Return the chart of score against response length, with a point for each of `rows` that has a score."""
    score = table.score
    rows = rows[np.isfinite(score[rows]) & (table.response_tokens[rows] > 0)]
    points = [
        {
            "row": row,
            "tokens": int(table.response_tokens[row]),
            "score": round(float(score[row]), 5),  # fewer digits leave more of the page's size to texts
            "set": _set(table, row),
        }
        for row in rows.tolist()
    ]
    log = {"type": "log", "nice": False}
    x = {"field": "tokens", "type": "quantitative", "title": "response tokens (log scale)", "scale": log, **axis()}
    skewed = is_skewed(np.array([point["score"] for point in points]))
    scale, name = (log, " (log scale)") if skewed else ({"zero": False}, "")
    y = {"field": "score", "type": "quantitative", "title": table.by.replace("_", " ") + name, "scale": scale}
    tooltip = [number("row", "d"), number("tokens", "d"), number("score", ".4f"), field("set", "nominal", "is")]
    return chart(points, HEIGHT, layer=_points({"x": x, "y": y, "tooltip": tooltip}))


def map_figure(table: RunTable, projection: Projection, names: Mapping[int, str]) -> Spec:
    """Return the map of the embeddings: a point per record, a ring per cluster, and names where there is room."""
    clusters = table.cluster[projection.rows]
    points = [
        {"row": row, "x": x, "y": y, "name": names.get(c, str(c)), "set": _set(table, row)}
        for row, (x, y), c in zip(
            projection.rows.tolist(), projection.points.round(3).tolist(), clusters.tolist(), strict=True
        )
    ]
    # Sizes count all records; the points may be a sample of them.
    sizes = np.bincount(table.cluster[table.cluster >= 0]).tolist()
    centres = {
        c: (*projection.points[clusters == c].mean(axis=0).round(3).tolist(), sizes[c])
        for c in np.unique(clusters[clusters >= 0]).tolist()
    }
    x, y = (
        {"field": f, "type": "quantitative", "title": f"component {n}", **axis(ticks=False)}
        for f, n in (("x", 1), ("y", 2))
    )
    size = {"field": "records", "type": "quantitative", "legend": None, "scale": {"range": [20, 260], "zero": True}}
    about = [field("name", "nominal", "cluster"), number("records", ",d")]
    label = {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}}
    tooltip = [field("name", "nominal", "cluster"), number("row", "d"), field("set", "nominal", "is")]
    layers = [
        *_points({"x": x, "y": y, "tooltip": tooltip}, data={"values": points}),
        {"mark": _RING, "encoding": {"x": x, "y": y, "size": size, "tooltip": about}},
        # Every name twice: a thick outline in the page's colour keeps it readable above points.
        {"mark": {**_LABEL, **_HALO}, "encoding": label},
        {"mark": _LABEL, "encoding": label},
    ]
    return chart(map_labels(centres, names), 460, layer=layers)


_RING = {
    "type": "point",
    "filled": False,
    "stroke": "var(--ink)",
    "strokeWidth": 1,
    "cursor": "pointer",
    "aria": False,
}
_LABEL = {"type": "text", "dy": -11, "fontSize": 11, "fontWeight": 600, "fill": "var(--ink)", "aria": False}
_HALO = {"stroke": "var(--paper)", "strokeWidth": 4, "strokeJoin": "round"}


def _points(encoding: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """Return points in two layers: the others, grey, faint and small, and above them the kept ones, blue and larger."""
    mark = {"type": "point", "filled": True, "strokeWidth": 0, "cursor": "pointer", "aria": False}
    looks = ((OTHERS, {"size": 12, "opacity": 0.5}), (KEPT, {"size": 26, "opacity": 0.95}))
    sets = colour("set", (KEPT, OTHERS), ("var(--kept)", "var(--others)"))
    return [
        {
            **more,
            "mark": {**mark, **look},
            "transform": [{"filter": {"field": "set", "equal": name}}],
            "encoding": {**encoding, "color": sets},
        }
        for name, look in looks
    ]


def _set(table: RunTable, row: int) -> str:
    return KEPT if table.kept[row] else OTHERS
