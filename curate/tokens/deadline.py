"""Ends a piece of work that does not come to an end by itself: a chat template may loop for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OverdueError(BaseException):
    """The time is up. No Exception, since a library may catch those and go on."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise OverdueError inside the block after so many seconds.

    Only in the main thread, since Python runs handlers of signals there, and between steps of Python code: a single
    call into C is waited for. A timer that runs already is left alone. Windows has no such timer.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, _overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)  # None: the handler was not set by Python


def _overdue(number: int, frame: FrameType | None) -> None:
    raise OverdueError
