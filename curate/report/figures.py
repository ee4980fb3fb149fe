"""The charts of a report as Vega-Lite specifications: plain JSON values, with their data in them.

Colours are the custom properties of page.css, so a chart follows light and dark without being drawn again. They are
of Okabe and Ito's palette, and no chart speaks by colour alone: kept points are larger, exit lines have dashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.report.chart_data import KEPT, LEVELS, OTHERS, Rows, map_labels
from curate.report.projection import Projection
from curate.report.run_table import RunTable
from curate.types import IntArray

Spec = dict[str, Any]


def histogram_figure(rows: Rows, score: str) -> Spec:
    """Return the chart of `histogram`: each set as percent of itself, so that a tenth can be seen beside the rest."""
    tooltip = [
        _field("set", "nominal", "records"),
        _number("from"),
        _number("to"),
        _number("percent", ".1f", "% of set"),
    ]
    return _chart(
        rows,
        _HEIGHT,
        mark={"type": "bar", "fillOpacity": 0.45, "strokeWidth": 0, "aria": False, "binSpacing": 0},
        encoding={
            "x": {
                "field": "from",
                "bin": {"binned": True},
                "type": "quantitative",
                "title": score.replace("_", " "),
                **_axis(grid=False),
            },
            "x2": {"field": "to"},
            "y": {"field": "percent", "type": "quantitative", "stack": None, "title": "percent of each set"},
            "color": _colour("set", (KEPT, OTHERS), ("var(--kept)", "var(--others)")),
            "tooltip": tooltip,
        },
    )


def exits_figure(rows: Rows) -> Spec:
    """Return the chart of `exit_levels`: a line per level, and a band for the middle half of its records."""
    x = {"field": "exit", "type": "quantitative", "title": "exit (layer)", **_axis(grid=False, whole=True)}
    y = {"type": "quantitative", "title": "confidence"}
    colour = _colour("level", LEVELS, ("var(--easy)", "var(--middle)", "var(--hard)"))
    colour["legend"] = {**_LEGEND, "symbolType": "stroke", "symbolSize": 240}
    dashes = {"domain": list(LEVELS), "range": [[1, 0], [6, 3], [2, 3]]}
    tooltip = [_field("level", "nominal"), _number("exit", "d"), _number("median"), _number("low"), _number("high")]
    band = {
        "mark": {"type": "area", "opacity": 0.14, "aria": False},
        "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": colour},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 34}, "aria": False},
        "encoding": {
            "x": x,
            "y": {"field": "median", **y},
            "color": colour,
            "strokeDash": {**colour, "scale": dashes},
            "tooltip": tooltip,
        },
    }
    return _chart(rows, _HEIGHT, layer=[band, line])


def length_figure(table: RunTable, rows: IntArray) -> Spec:
    """Return the chart of score against response length, a point for each of `rows`."""
    score = table.score
    rows = rows[np.isfinite(score[rows]) & (table.response_tokens[rows] > 0)]
    points = [
        {
            "row": row,
            "tokens": int(table.response_tokens[row]),
            "score": round(float(score[row]), 5),
            "set": _set(table, row),
        }
        for row in rows.tolist()
    ]
    log = {"type": "log", "nice": False}
    x = {"field": "tokens", "type": "quantitative", "title": "response tokens (log scale)", "scale": log, **_axis()}
    y = {"field": "score", "type": "quantitative", "title": table.by.replace("_", " "), "scale": {"zero": False}}
    tooltip = [_number("row", "d"), _number("tokens", "d"), _number("score", ".4f"), _field("set", "nominal", "is")]
    return _chart(points, _HEIGHT, layer=_points({"x": x, "y": y, "tooltip": tooltip}))


def map_figure(table: RunTable, projection: Projection, names: Mapping[int, str]) -> Spec:
    """Return the map: a point per record, a ring and (where there is room) a name per cluster."""
    clusters = table.cluster[projection.rows]
    points = [
        {"row": row, "x": x, "y": y, "name": names.get(c, str(c)), "set": _set(table, row)}
        for row, (x, y), c in zip(
            projection.rows.tolist(), projection.points.round(3).tolist(), clusters.tolist(), strict=True
        )
    ]
    sizes = np.bincount(table.cluster[table.cluster >= 0]).tolist()
    centres = {
        c: (*projection.points[clusters == c].mean(axis=0).round(3).tolist(), sizes[c])
        for c in np.unique(clusters[clusters >= 0]).tolist()
    }
    x, y = (
        {"field": f, "type": "quantitative", "title": f"component {n}", **_axis(ticks=False)}
        for f, n in (("x", 1), ("y", 2))
    )
    size = {"field": "records", "type": "quantitative", "legend": None, "scale": {"range": [20, 260], "zero": True}}
    about = [_field("name", "nominal", "cluster"), _number("records", ",d")]
    label = {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}}
    tooltip = [_field("name", "nominal", "cluster"), _number("row", "d"), _field("set", "nominal", "is")]
    layers = [
        *_points({"x": x, "y": y, "tooltip": tooltip}, data={"values": points}),
        {"mark": _RING, "encoding": {"x": x, "y": y, "size": size, "tooltip": about}},
        {"mark": {**_LABEL, **_HALO}, "encoding": label},
        {"mark": _LABEL, "encoding": label},
    ]
    return _chart(map_labels(centres, names), 460, layer=layers)


_HEIGHT = 230
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
    """Points in two layers: the others grey, faint and small, and on top of them the kept ones blue and larger."""
    mark = {"type": "point", "filled": True, "strokeWidth": 0, "cursor": "pointer", "aria": False}
    looks = ((OTHERS, {"size": 12, "opacity": 0.5}), (KEPT, {"size": 26, "opacity": 0.95}))
    colour = _colour("set", (KEPT, OTHERS), ("var(--kept)", "var(--others)"))
    return [
        {
            **more,
            "mark": {**mark, **look},
            "transform": [{"filter": {"field": "set", "equal": name}}],
            "encoding": {**encoding, "color": colour},
        }
        for name, look in looks
    ]


def _set(table: RunTable, row: int) -> str:
    return KEPT if table.kept[row] else OTHERS


def _colour(field: str, domain: tuple[str, ...], colours: tuple[str, ...]) -> dict[str, Any]:
    scale = {"domain": list(domain), "range": list(colours)}
    return {"field": field, "type": "nominal", "sort": None, "scale": scale, "legend": _LEGEND}


_LEGEND = {"title": None, "orient": "top", "direction": "horizontal", "symbolOpacity": 1, "symbolStrokeWidth": 2}


def _field(name: str, type_: str, title: str | None = None) -> dict[str, Any]:
    return {"field": name, "type": type_, "title": title or name}


def _number(name: str, shape: str = ".3f", title: str | None = None) -> dict[str, Any]:
    return {**_field(name, "quantitative", title), "format": shape}


def _axis(*, grid: bool = True, whole: bool = False, ticks: bool = True) -> dict[str, Any]:
    axis: dict[str, Any] = {"grid": grid and ticks, "labels": ticks, "ticks": ticks}
    return {"axis": axis | ({"tickMinStep": 1, "format": "d"} if whole else {})}


def _chart(values: Rows, height: int, **more: Any) -> Spec:
    """A chart as wide as its place on the page."""
    axis = {
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "gridColor": "var(--grid)",
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": 400,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
    }
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": values},
        **more,
        "config": {
            "background": None,
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": axis,
            "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "offset": 4, "padding": 0},
        },
    }
