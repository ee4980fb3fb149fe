"""Reads the tables of a run after checking that this run wrote them.

A person may copy a table from another run. Scores of one data set beside embeddings of another have the right shape,
and a selection from both would be silently wrong. So the digest of a table is compared with the one that its stage
entered in the manifest. The order of the rows does not matter.
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
    """Return status, lengths and duplicates of every record from scores.parquet.

    Raises:
        CurateError: it is missing or damaged, or holds other records.
    """
    path = job.folder.path / "scores.parquet"
    rows = read_rows(path)
    # By the ids of the records, not by the bytes: further passes add columns to this table.
    _compare(job.folder, "tokens", "ids", rows.digest, path, "score")
    return rows


def verified_embeddings(job: Job) -> npt.NDArray[np.float32]:
    """Return the embeddings of this run, float32 [N, D], memory-mapped.

    Raises:
        CurateError: they are missing or damaged, or belong to other records.
    """
    path = job.folder.path / "embeddings.npy"
    vectors = open_embeddings(path)
    with errors_naming(path, "embed"):
        found = digest_of_blocks(path)
    _compare(job.folder, "embeddings", "digest", found, path, "embed")
    return vectors


def verified_clusters(job: Job, num_rows: int, *, needed: bool) -> npt.NDArray[np.int32] | None:
    """Return the cluster of every row, int32 [N]; None if there are none and they are not needed.

    A selection that does not need clusters still writes them into its table. They are then left out if they belong to
    other embeddings or other data.

    Args:
        job: the job.
        num_rows: N, the number of input records.
        needed: whether the selection cannot be made without clusters.

    Raises:
        CurateError: they are needed, and missing; or they are damaged, or belong to other records.
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
        CurateError: selection.parquet is missing or damaged, or belongs to another selection.
    """
    path = folder.selection(name) / "selection.parquet"
    kept = read_kept(path)
    _compare(folder, f"selections/{name}", "digest", digest_of_values(kept), path, "select")
    return kept


def _compare(folder: RunFolder, stage: str, fact: Literal["ids", "digest"], found: str, path: Path, verb: str) -> None:
    """Refuse a table whose digest is not the one in the manifest.

    Args:
        folder: the run folder.
        stage: the stage that wrote the table.
        fact: the name of the digest in its entry.
        found: the digest of the table as it is now.
        path: the table.
        verb: the verb that makes it again, for the message.

    Raises:
        CurateError: the digests differ. Without a digest in the manifest there is nothing to compare.
    """
    record = folder.stage(stage)
    if record is not None and record.get(fact, found) != found:
        raise CurateError(f"{path} is not the one that this run made, it is of other records: {_again(path, verb)}")


def _again(path: Path, verb: str) -> str:
    return f"remove it, and curate {verb} makes {path.name} again"
