"""Reads the tables of a run after checking that this run wrote them.

A person may copy a table from another run. Scores of one data set beside embeddings of another have the right shape,
and a selection from both would be silently wrong. So the digest of a table is compared with the one that its stage
entered in the manifest. The order of the rows does not matter. Files that are read whole (an adapter, kept records) are
held against the manifest too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.pipeline.job import Job
from curate.runs.digests import digest_of_blocks
from curate.runs.folder import COMPARISON, RunFolder
from curate.tables.clusters import read_clusters
from curate.tables.digests import digest_of_values
from curate.tables.embeddings import open_embeddings
from curate.tables.parquet import errors_naming
from curate.tables.score_columns import Rows, read_about, read_column, read_rows, score_columns
from curate.tables.selection import read_kept
from curate.types import CurateError


def verified_rows(folder: RunFolder) -> Rows:
    """Return status, lengths and duplicates of every record from scores.parquet.

    The scores in it are checked as well: the table of another model holds the same records.

    Raises:
        CurateError: it is missing or damaged, holds other records, or scores that this run did not compute.
    """
    path = folder.path / "scores.parquet"
    rows = read_rows(path)
    # By the ids of the records, not by the bytes: further passes add columns to this table.
    _compare(folder, "tokens", "ids", rows.digest, path, "score")
    there = score_columns(path)
    if "complexity" not in there:  # scoring may change the status of some records, and with it their lengths
        _compare(folder, "tokens", "lengths", digest_of_values(rows.response_tokens), path, "score")
    for stage, record in folder.stages().items():
        if stage == "scores" or stage.startswith("scores/"):
            expected = {name: digest for name, digest in record.get("digests", {}).items() if name in there}
            if column_digests(path, expected) != expected:
                raise _not_ours(path, "it has other scores", "score")
    scores = folder.stage("scores")
    if scores is not None and "complexity" in there and list(read_about(path).exits) != scores["key"]["score.exits"]:
        raise _not_ours(path, "it has other exits", "score")
    return rows


def column_digests(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of columns of scores.parquet, by name, to be entered in the manifest."""
    return {name: digest_of_values(read_column(path, name)) for name in names}


def verified_file(folder: RunFolder, stage: str, path: Path, verb: str) -> None:
    """Check that a file is the one that its stage entered in the manifest under `digests`.

    Args:
        folder: the run folder.
        stage: the stage that wrote the file.
        path: the file.
        verb: the verb that makes it again, for the message.

    Raises:
        CurateError: it is another one, or cannot be read. Without a digest in the manifest there is nothing to compare.
    """
    expected = (folder.stage(stage) or {}).get("digests", {}).get(path.name)
    _compare_file(path, expected, verb)


def verified_comparison(folder: RunFolder) -> None:
    """Check that comparison.json, if there is one, is the one that this run made.

    Raises:
        CurateError: it is another one, or cannot be read.
    """
    path = folder.path / COMPARISON
    if path.exists():
        _compare_file(path, folder.manifest().get("comparison", {}).get(path.name), "compare")


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


def verified_selection(folder: RunFolder, name: str) -> Path:
    """Return the file of kept records of the selection `name`, after checking it and selection.parquet.

    Raises:
        CurateError: one of them is missing, damaged, or not of this selection.
    """
    verified_kept(folder, name)
    record = folder.stage(f"selections/{name}")
    assert record is not None, "asked for a finished selection"
    path = folder.selection(name) / record["file"]
    verified_file(folder, f"selections/{name}", path, "select")
    return path


def _compare(
    folder: RunFolder, stage: str, fact: Literal["ids", "lengths", "digest"], found: str, path: Path, verb: str
) -> None:
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
        raise _not_ours(path, "it is of other records", verb)


def _compare_file(path: Path, expected: str | None, verb: str) -> None:
    if expected is not None:
        with errors_naming(path, verb):
            found = digest_of_blocks(path)
        if found != expected:
            raise _not_ours(path, "it was changed or comes from elsewhere", verb)


def _not_ours(path: Path, why: str, verb: str) -> CurateError:
    return CurateError(f"{path} is not the one that this run made, {why}: {_again(path, verb)}")


def _again(path: Path, verb: str) -> str:
    return f"remove it, and curate {verb} makes {path.name} again"
