"""Peak memory of a piece of work: of the GPU as torch counts it, of the CPU as Linux does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_SECONDS_BETWEEN_LOOKS = 0.005


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Give a function that, after the block, returns by how many bytes memory grew within it at most.

    None where nobody counts: on a CPU without /proc, and on Apple's GPU. On a CPU, memory that was freed before but not
    given back is used again without being seen, so the largest piece of work is to be measured first.
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
    """Memory of this process that is no file's."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    kilobytes = next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")
    return int(kilobytes) * 1024
