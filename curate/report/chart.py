"""What all charts of a page share: size, axes, legends, colours.

Colours are the custom properties of page.css, so a chart follows light and dark without being drawn again. They are
of Okabe and Ito's palette, which colour-blind people can tell apart.
"""

from __future__ import annotations

from typing import Any

from curate.report.chart_data import Rows

Spec = dict[str, Any]
HEIGHT = 230


LEGEND = {"title": None, "orient": "top", "direction": "horizontal", "symbolOpacity": 1, "symbolStrokeWidth": 2}


def colour(name: str, domain: tuple[str, ...], colours: tuple[str, ...]) -> Spec:
    """Return the colour channel of a field with these values, in this order, and its legend above the chart."""
    scale = {"domain": list(domain), "range": list(colours)}
    return {"field": name, "type": "nominal", "sort": None, "scale": scale, "legend": LEGEND}


def field(name: str, type_: str, title: str | None = None) -> Spec:
    """Return a field of a tooltip."""
    return {"field": name, "type": type_, "title": title or name}


def number(name: str, shape: str = ".3f", title: str | None = None) -> Spec:
    """Return a number of a tooltip, written as d3-format's `shape` says."""
    return {**field(name, "quantitative", title), "format": shape}


def axis(*, grid: bool = True, whole: bool = False, ticks: bool = True) -> Spec:
    """Return an axis: with a grid or without, of whole numbers or any, with numbers or none."""
    settings: Spec = {"grid": grid and ticks, "labels": ticks, "ticks": ticks}
    return {"axis": settings | ({"tickMinStep": 1, "format": "d"} if whole else {})}


def chart(values: Rows, height: int, **more: Any) -> Spec:
    """Return a chart as wide as its place on the page, and `height` pixels high."""
    axes = {
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
            "axis": axes,
            "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "offset": 4, "padding": 0},
        },
    }
