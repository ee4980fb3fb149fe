"""Where progress is shown: as the caller asks, else as the command line does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from curate.runs.launch import Progress


def shown(progress: Progress | None) -> AbstractContextManager[Progress]:
    """Give the function to call with progress: the caller's, or one that shows the bars of the command line."""
    from curate.cli.terminal import progress as bars

    return bars() if progress is None else nullcontext(progress)
