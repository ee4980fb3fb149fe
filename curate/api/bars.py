"""Chooses where progress is shown: where the caller says, else as the command line does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from curate.runs.launch import Progress


def shown(progress: Progress | None) -> AbstractContextManager[Progress]:
    """Return a context that gives the function to report progress to: the caller's, or the command line's bars."""
    from curate.cli.terminal import progress as bars

    return bars() if progress is None else nullcontext(progress)
