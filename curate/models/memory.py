"""Measures memory: what a process holds, the peak of a stage, the growth in a piece of work.

On a GPU it is what torch has allocated there. On a CPU it is resident memory, as Linux counts it: with Python, its
libraries and mapped weights.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_COUNT_ANEW = Path("/proc/self/clear_refs")
_SECONDS_BETWEEN_LOOKS = 0.005  # short against a batch on a CPU, and little work


def process_memory(device: torch.device) -> int | None:
    """Return the bytes that this process holds now; 0 on a GPU, None where they are not counted.

    Before weights are loaded that is what a process on a CPU needs beside a model: Python, its libraries, tokenizers.
    """
    if device.type == "cuda":
        return 0
    return _counted("VmRSS") if device.type == "cpu" else None


def take_peak_memory() -> int | None:
    """Return the most bytes that this process has held since the last call, or since it began; then count anew.

    None where they are not counted: without /proc, and on Apple's GPU. None too where Linux does not allow to count
    anew, since a peak of earlier work would then be told as one of later work.
    """
    torch = sys.modules.get("torch")  # loading it takes seconds, and where nobody has, nothing is on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak = int(torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
        return peak
    if torch is not None and torch.backends.mps.is_available():
        return None
    resident = _counted("VmHWM")
    try:
        _COUNT_ANEW.write_text("5", encoding="ascii")  # 5 resets VmHWM; see proc(5)
    except OSError:
        return None
    return resident


@contextmanager
def memory_growth(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Yield a function that, after the context, returns the largest growth of memory inside it, in bytes.

    It returns None where memory is not counted: on a CPU without /proc, and on Apple's GPU. On a CPU, measure the
    largest piece of work first: memory that Python has freed but not returned to the system is used again unseen.
    """
    if device.type == "cuda":
        import torch

        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: int(torch.cuda.max_memory_allocated(device) - before)
    elif device.type == "cpu" and _counted("RssAnon") is not None:
        with _watched_process() as grown:
            yield grown
    else:
        yield lambda: None


@contextmanager
def _watched_process() -> Iterator[Callable[[], int]]:
    """Watch the memory of the process from a thread while the context is open; yield a function from () to bytes."""
    # Not the kernel's own peak, VmHWM: it counts mapped files too, and weights are mapped.
    before, peak, over = _counted("RssAnon") or 0, 0, threading.Event()

    def look() -> None:
        nonlocal peak
        peak = max(peak, (_counted("RssAnon") or 0) - before)

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        over.set()
        watcher.join()
        look()


def _counted(name: str) -> int | None:
    """Return the bytes in a line of /proc/self/status, such as VmRSS; None without such a line."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024  # /proc writes kB and means 1,024 bytes
