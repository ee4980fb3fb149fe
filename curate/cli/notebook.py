"""Shows progress in the cell of a notebook: one bar and a line, which disappear when all is done."""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from curate.cli.rates import Rates

_SECONDS_BETWEEN = 0.25


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # not imported here: the kernel of a notebook has done so
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def cell_bar() -> Iterator[Callable[[str, int, int | None, str], None]]:
    """Give a function that shows progress in the output of the cell; see `terminal.progress`."""
    # With IPython alone: rich and tqdm need the package ipywidgets to draw a bar in a notebook.
    from IPython.display import display

    rates, last = Rates(), -math.inf
    handle = display(_bundle("starting", 0, None), raw=True, display_id=True)

    def show(stage: str, done: int, total: int | None, unit: str) -> None:
        nonlocal last
        rates.update(stage, done)
        if (now := time.monotonic()) - last > _SECONDS_BETWEEN:
            last = now
            handle.update(_bundle(rates.line(total, unit), done, total), raw=True)

    try:
        yield show
    finally:
        handle.update({"text/plain": "", "text/html": ""}, raw=True)  # a stored notebook then holds no bar


def _bundle(line: str, done: int, total: int | None) -> dict[str, str]:
    how_far = f' value="{done}" max="{total}"' if total else ""
    return {"text/plain": line, "text/html": f"<progress{how_far}></progress> {html.escape(line)}"}
