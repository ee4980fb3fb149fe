"""Chooses the device and the precision of this process, and describes the device."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from curate.types import CurateError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def resolve_device() -> torch.device:
    """Return the device of this process: the GPU of its local rank, else Apple's GPU (mps), else the CPU.

    Raises:
        CurateError: more processes than GPUs on this machine.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise CurateError(f"expected at most one process per GPU, got process {local_rank + 1} on {gpus} GPU(s)")
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """Return the precision of the weights; "auto" is float32 on a CPU, bfloat16 on a GPU that has it, else float16.

    >>> resolve_dtype("auto", torch.device("cpu"))
    torch.float32
    """
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    if device.type == "cpu":
        return torch.float32
    # By default torch also says yes where bfloat16 is only emulated, which is slow.
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def sharded_by_launcher() -> bool:
    """Say whether `accelerate launch` runs this process with FSDP or DeepSpeed, which place the weights themselves."""
    switches = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() == "true" for name in switches)


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device, for a person to read.

    name    name of the GPU or of the processor
    kind    cuda, mps or cpu
    memory  total memory in bytes; None where the system does not tell
    free    memory in bytes that is free now; None where the system does not tell
    dtypes  precisions in which the device computes, as in the setting `model.dtype`
    """

    name: str
    kind: str
    memory: int | None
    free: int | None
    dtypes: tuple[str, ...]


def describe_device(device: torch.device) -> DeviceFacts:
    """Return the name, memory and precisions of a device."""
    if device.type == "cuda":
        free, memory = torch.cuda.mem_get_info(device)
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtypes = ("float32", "float16", "bfloat16") if has_bfloat16 else ("float32", "float16")
        return DeviceFacts(torch.cuda.get_device_name(device), "cuda", memory, free, dtypes)
    if device.type == "mps":
        # Apple's GPU shares the memory of the machine; Metal says how much of it the GPU should use at most.
        limit = torch.mps.recommended_max_memory()
        used = torch.mps.driver_allocated_memory()
        return DeviceFacts(f"Apple {platform.machine()}", "mps", limit, limit - used, ("float32", "float16"))
    name = _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return DeviceFacts(name, "cpu", *_main_memory(), ("float32", "bfloat16", "float16"))


def _main_memory() -> tuple[int | None, int | None]:
    """Return total and free memory in bytes; inside a container with a limit, the limit and what is free of it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows
        return None, None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = _line("/proc/meminfo", "MemAvailable")
    free = int(available.split()[0]) * 1024 if available else None
    # Where cgroups limit a container (v2), /proc/meminfo still shows the memory of the whole machine.
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is None or limit >= memory:
        return memory, free
    return limit, None if free is None else min(free, limit - (used or 0))


def _number(path: str) -> int | None:
    """Return the number in a file of the system; None where there is none (cgroups write "max" for no limit)."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _line(path: str, key: str) -> str | None:
    """Return what follows the colon in the first line of a file that begins with `key`; None without such a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
