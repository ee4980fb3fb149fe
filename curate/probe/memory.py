"""Measures the peak memory of a piece of work: on a GPU as torch counts it, on a CPU as Linux does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_SECONDS_BETWEEN_LOOKS = 0.005  # short against a batch on a CPU, and little work


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Yield a function that, after the context, returns the largest growth of memory inside it, in bytes.

    It returns None where memory is not counted: on a CPU without /proc, and on Apple's GPU. On a CPU, measure the
    largest piece of work first: memory that Python has freed but not returned to the system is used again unseen.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: int(torch.cuda.max_memory_allocated(device) - before)
    elif device.type == "cpu" and _STATUS.exists():
        with _watched_process() as grown:
            yield grown
    else:
        yield lambda: None


@contextmanager
def _watched_process() -> Iterator[Callable[[], int]]:
    """Watch the memory of the process from a thread while the context is open; yield a function from () to bytes."""
    # Not the kernel's own peak, VmHWM: it counts mapped files too, and weights are mapped.
    before, peak, over = _private_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            peak = max(peak, _private_bytes() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        over.set()
        watcher.join()
        peak = max(peak, _private_bytes() - before)


def _private_bytes() -> int:
    """Return the bytes of this process that do not belong to a mapped file."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    kilobytes = next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")
    return int(kilobytes) * 1024  # /proc writes kB and means 1,024 bytes
