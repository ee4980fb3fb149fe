"""The plotting library: Vega, Vega-Lite and vega-embed as one script, from the package vl-convert-python."""

from __future__ import annotations

import functools

from curate.types import CurateError

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def vega_script() -> str:
    """Return the JavaScript that defines `window.vegaEmbed`, about 900 kB; nothing is fetched.

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
