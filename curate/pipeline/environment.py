"""What a run was made with: versions, seed, device, threads, git commit; for the manifest."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import TYPE_CHECKING, Any

from curate.config import Recipe

if TYPE_CHECKING:
    import torch

_VERSIONS = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "faiss-cpu",
    "sentence-transformers",
    "bitsandbytes",
    "numpy",
    "pyarrow",
)


def environment(recipe: Recipe, device: torch.device | None = None) -> dict[str, Any]:
    """Return versions, seed, device, threads per process and git commit, for the manifest.

    Args:
        recipe: the recipe of the run.
        device: where the model is; None: where it would be loaded.
    """
    import torch  # here, since `select` imports this module and must not load it

    from curate.models.device import resolve_device

    device = device or resolve_device()
    versions = {name: _version(name) for name in ("lc-curate", *_VERSIONS)}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
        "model": {"name": recipe.model.name, "revision": recipe.model.revision},
        "seed": recipe.run.seed,
        "device": device.type if device.type == "cpu" else f"{device.type}: {_device_name(device)}",
        "threads": torch.get_num_threads(),  # on a CPU, the last bits of a score depend on it
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the repository that the working directory is in; None if it is in none."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
