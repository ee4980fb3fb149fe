"""Defines what all charts of a page share: size, axes, legends, colours.

Colours are custom properties of page.css, so a chart follows light and dark mode without being drawn again. They come
from the palette of Okabe and Ito, which colour-blind people can tell apart.
"""

from __future__ import annotations

from typing import Any

from curate.report.chart_data import Rows

Spec = dict[str, Any]
HEIGHT = 230

# Full opacity and stroke: the marks themselves may be faint, and the legend must still show their colour.
LEGEND = {"title": None, "orient": "top", "direction": "horizontal", "symbolOpacity": 1, "symbolStrokeWidth": 2}


def colour(name: str, domain: tuple[str, ...], colours: tuple[str, ...]) -> Spec:
    """Return the colour channel of a field: `domain` are its values in order, `colours` one for each, and a legend."""
    scale = {"domain": list(domain), "range": list(colours)}
    # Without "sort": None Vega-Lite orders the values by name.
    return {"field": name, "type": "nominal", "sort": None, "scale": scale, "legend": LEGEND}


def field(name: str, type_: str, title: str | None = None) -> Spec:
    """Return a field of a tooltip; `type_` is its Vega-Lite type."""
    return {"field": name, "type": type_, "title": title or name}


def number(name: str, shape: str = ".3f", title: str | None = None) -> Spec:
    """Return a number of a tooltip; `shape` is its format, as in d3-format."""
    return {**field(name, "quantitative", title), "format": shape}


def axis(*, grid: bool = True, whole: bool = False, ticks: bool = True) -> Spec:
    """Return an axis, with or without grid lines, for whole numbers only or any, with or without numbers beside it."""
    settings: Spec = {"grid": grid and ticks, "labels": ticks, "ticks": ticks}
    return {"axis": settings | ({"tickMinStep": 1, "format": "d"} if whole else {})}


def chart(values: Rows, height: int, **more: Any) -> Spec:
    """Return a chart of `values` that is as wide as its place on the page, and `height` pixels high."""
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
            "background": None,  # that of the page shows, light or dark
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": axes,
            "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "offset": 4, "padding": 0},
        },
    }
