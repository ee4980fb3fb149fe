"""Gives the plotting library as one script: Vega, Vega-Lite and vega-embed, from the package vl-convert-python."""

from __future__ import annotations

import functools

from curate.types import CurateError

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@functools.cache  # a report is rendered twice, and bundling takes a while
def vega_script() -> str:
    """Return JavaScript of about 900 kB that defines `window.vegaEmbed`; nothing is downloaded.

    Raises:
        CurateError: the extra `report` is not installed.
    """
    try:
        import vl_convert
    except ModuleNotFoundError:
        raise CurateError(
            "the report needs the package vl-convert-python, which holds the plotting library Vega; "
            'pip install "lc-curate[report]"'
        ) from None
    script: str = vl_convert.javascript_bundle(_SNIPPET)
    return script
