"""embeddings.npy: a unit vector for every record, NaN where it was not embedded; position i is row i."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.tables.parquet import errors_naming


def open_embeddings(path: Path) -> npt.NDArray[np.float32]:
    """Memory-map the vectors, float32 [N, D].

    Raises:
        CurateError: the file is missing or damaged.
    """
    with errors_naming(path, "embed"):
        # Mapped, not read: ten million vectors of 384 float32 are 15 GB.
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"expected float32 vectors, got {vectors.dtype} of shape {vectors.shape}")
    return vectors  # type: ignore[no-any-return]  # of numpy's loader
