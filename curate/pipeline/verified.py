"""The tables of a run, read only after they are known to be those that this run made.

Scores of some data beside the embeddings of others look right by themselves, and a selection from both would be wrong
without a word. What a stage writes down when it finishes is compared here, in one place. Rows may stand in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.pipeline.job import Job
from curate.runs.folder import RunFolder
from curate.tables.clusters import read_clusters
from curate.tables.digests import digest_of_blocks, digest_of_values
from curate.tables.embeddings import open_embeddings
from curate.tables.parquet import errors_naming
from curate.tables.score_columns import Rows, read_rows
from curate.tables.selection import read_kept
from curate.types import CurateError


def verified_rows(job: Job) -> Rows:
    """Return what scores.parquet says of every record of this run.

    Raises:
        CurateError: it is missing or damaged, or holds other records.
    """
    path = job.folder.path / "scores.parquet"
    rows = read_rows(path)
    _compare(job.folder, "tokens", "ids", rows.digest, path, "score")
    return rows


def verified_embeddings(job: Job) -> npt.NDArray[np.float32]:
    """Return the vectors that this run made, float32 [N, D], memory-mapped.

    Raises:
        CurateError: they are missing or damaged, or those of other records.
    """
    path = job.folder.path / "embeddings.npy"
    vectors = open_embeddings(path)
    with errors_naming(path, "embed"):
        found = digest_of_blocks(path)
    _compare(job.folder, "embeddings", "digest", found, path, "embed")
    return vectors


def verified_clusters(job: Job, num_rows: int, *, needed: bool) -> npt.NDArray[np.int32] | None:
    """Return the cluster of every row, int32 [N]; None where there are none and they are not needed.

    Clusters that a selection does not need are only told along, so those of other embeddings are then left out.

    Raises:
        CurateError: they are missing or damaged, or those of other records.
    """
    path, record = job.folder.path / "clusters.parquet", job.folder.stage("clusters")
    embedded = job.folder.stage("embeddings")
    ours = (
        record is not None
        and embedded is not None
        and record["key"].get("embeddings") == embedded["fingerprint"]
        and embedded["key"].get("data") == job.settled.data_sha256
    )
    if not needed and not (ours and path.exists()):
        return None
    labels = read_clusters(path)
    _compare(job.folder, "clusters", "digest", digest_of_values(labels), path, "embed")
    if len(labels) != num_rows:
        raise CurateError(f"{path} has {len(labels)} rows where there are {num_rows} records: {_again(path, 'embed')}")
    return labels


def verified_kept(folder: RunFolder, name: str) -> npt.NDArray[np.bool_]:
    """Return which rows the selection `name` keeps, bool [N].

    Raises:
        CurateError: selection.parquet is missing or damaged, or is that of another selection.
    """
    path = folder.selection(name) / "selection.parquet"
    kept = read_kept(path)
    _compare(folder, f"selections/{name}", "digest", digest_of_values(kept), path, "select")
    return kept


def _compare(folder: RunFolder, stage: str, fact: Literal["ids", "digest"], found: str, path: Path, verb: str) -> None:
    """Refuse a table with another digest than was written down; where none was, there is nothing to compare."""
    record = folder.stage(stage)
    if record is not None and record.get(fact, found) != found:
        raise CurateError(f"{path} is not the one that this run made, it is of other records: {_again(path, verb)}")


def _again(path: Path, verb: str) -> str:
    return f"remove it, and curate {verb} makes {path.name} again"
