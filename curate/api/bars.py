"""Chooses where progress is shown: where the caller says, else as the command line does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.runs.launch import Progress


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """Give the function to report progress to: the caller's, or one that shows the bars of the command line.

    Meanwhile bitsandbytes, which anything may import, does not warn of optional kernels; nothing need be quantised.
    """
    from curate.cli.terminal import progress as bars

    noisy = logging.getLogger("bitsandbytes")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with bars() if progress is None else nullcontext(progress) as show:
            yield show
    finally:
        noisy.setLevel(level)
