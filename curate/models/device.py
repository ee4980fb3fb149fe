"""What this machine computes on: the device, its memory, and the precisions it has."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device as a person would describe it.

    name    of the GPU, or of the processor
    kind    cuda, mps or cpu
    memory  bytes in all; None where the system does not tell
    free    bytes that are free now; None where the system does not tell
    dtypes  precisions in which it computes, as `model.dtype` calls them
    """

    name: str
    kind: str
    memory: int | None
    free: int | None
    dtypes: tuple[str, ...]


def describe_device(device: torch.device) -> DeviceFacts:
    """Describe a device: its name, its memory, and the precisions that it has."""
    if device.type == "cuda":
        free, memory = torch.cuda.mem_get_info(device)
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtypes = ("float32", "float16", "bfloat16") if has_bfloat16 else ("float32", "float16")
        return DeviceFacts(torch.cuda.get_device_name(device), "cuda", memory, free, dtypes)
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        used = torch.mps.driver_allocated_memory()
        return DeviceFacts(f"Apple {platform.machine()}", "mps", limit, limit - used, ("float32", "float16"))
    name = _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return DeviceFacts(name, "cpu", *_main_memory(), ("float32", "bfloat16", "float16"))


def _main_memory() -> tuple[int | None, int | None]:
    """Bytes in all and free; in a container with a limit, of the limit."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows
        return None, None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = _line("/proc/meminfo", "MemAvailable")
    free = int(available.split()[0]) * 1024 if available else None
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is None or limit >= memory:
        return memory, free
    return limit, None if free is None else min(free, limit - (used or 0))


def _number(path: str) -> int | None:
    """The number in a file of the system; None where there is none ("max": no limit)."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _line(path: str, key: str) -> str | None:
    """What follows `key:` in the first line of a file of the system that begins with it."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
