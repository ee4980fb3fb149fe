"""The embedding stage: texts to embeddings.npy, computed in chunks by every process; then the clusters."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.diversity.embed import count_truncated, load_embedder
from curate.diversity.embed import embed as embed_texts
from curate.diversity.texts import open_texts
from curate.models.device import resolve_device
from curate.models.embedder import embedder_fingerprint
from curate.pipeline.clusters import cluster
from curate.pipeline.job import Job
from curate.pipeline.settle import token_settings
from curate.pipeline.tokens import embedding_texts, make_tokens
from curate.pipeline.verified import verified_rows
from curate.runs.atomic import replacing
from curate.runs.digests import digest_of_blocks
from curate.runs.keys import read_key, write_key
from curate.runs.processes import chunks_of_rank
from curate.runs.stage import Outcome, Stage
from curate.tables.embeddings import open_embeddings
from curate.types import STATUSES

_CHUNK_ROWS = 1024  # records of a chunk: what is computed again after a kill


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process finds out before anything is embedded.

    done      whether the embeddings were finished before
    key       what they depend on, by name
    num_rows  N, the number of input records
    finished  numbers of the chunks that an earlier call finished
    """

    done: bool
    key: dict[str, Any]
    num_rows: int = 0
    finished: list[int] = field(default_factory=list)


def embed(job: Job) -> None:
    """Write embeddings.npy and clusters.parquet, as far as they are not finished.

    Raises:
        CurateError: the run has embeddings of other data or of another embedder; the embedder cannot be loaded.
    """
    started = time.monotonic()
    prepared = job.launch.from_main("embeddings", lambda: _prepare(job), Prepared)
    if not prepared.done:
        chunks = _embed_chunks(job, prepared.num_rows, set(prepared.finished))
        if job.is_main:
            _publish(job, chunks, Stage(job.folder, "embeddings", prepared.key, (_path(job),), started))
    if job.is_main:
        cluster(job)


def _path(job: Job) -> Path:
    return job.folder.path / "embeddings.npy"


def _prepare(job: Job) -> Prepared:
    """Find the chunks that an earlier call finished; in a new stage, decide which rows get a vector."""
    embed, work = job.recipe.embed, job.folder.work / "embeddings"
    with job.launch.heartbeat.kept_up():
        key = {
            "data": job.settled.data_sha256,
            **token_settings(job.recipe),
            "embed.model": embedder_fingerprint(embed.model),
            "embed.text": embed.text,
            "embed.batch_size": embed.batch_size,
        }
    stage = Stage(job.folder, "embeddings", key, (_path(job),), rows=lambda: len(open_embeddings(_path(job))))
    stage.refuse_change()
    if stage.is_finished():
        shutil.rmtree(work, ignore_errors=True)  # the call that finished may have been killed before this
        return Prepared(True, key)
    finished: list[int] = []
    if (unfinished := read_key(work)) is not None:
        job.folder.require_same("embeddings", unfinished, key)
        finished = job.launch.finished_chunks(work, _read_chunk)
    else:
        # The rows are fixed with the key: scores that are computed meanwhile may give some records another status.
        with replacing(work) as temporary:
            temporary.mkdir()
            np.save(temporary / "rows.npy", _rows_to_embed(job))
            write_key(temporary, key, with_files=True)
    return Prepared(False, key, len(embedding_texts(job)), finished)


def _rows_to_embed(job: Job) -> npt.NDArray[np.bool_]:
    """Return which rows get a vector, bool [N]: those that were scored, or that can be scored if none was yet."""
    scores = job.folder.path / "scores.parquet"
    if scores.exists():
        return np.asarray(verified_rows(job.folder).status == STATUSES.index("scored"))
    return np.asarray(make_tokens(job).rows["status"] == STATUSES.index("scored"))


def _embedded(job: Job) -> npt.NDArray[np.bool_]:
    """Return which rows get a vector, bool [N], as it was stored before the first chunk."""
    rows: npt.NDArray[np.bool_] = np.load(job.folder.work / "embeddings" / "rows.npy", allow_pickle=False)
    return rows


def _embed_chunks(job: Job, num_rows: int, finished: Collection[int]) -> list[Path]:
    """Embed the chunks of this process that are not finished, and return the files of all chunks."""
    processes, num_chunks = job.launch.processes, -(-num_rows // _CHUNK_ROWS)
    # Opened at the first chunk. A process without one may come after the main process has removed these files.
    embedder, rows_to_embed = functools.cache(lambda: _load(job)), functools.cache(lambda: _embedded(job))
    texts = functools.cache(lambda: open_texts(job.folder.work / "texts"))
    own = chunks_of_rank(num_chunks, processes.rank, processes.count)
    done = sum(chunk in finished for chunk in own)

    def show(fraction: float) -> None:
        """Tell how much of this process's chunks is done: the others do as many."""
        job.launch.advance("embeddings", round(num_rows * (done + fraction) / len(own)), num_rows, "records")

    def compute(chunk: int) -> dict[str, Any]:
        nonlocal done
        rows = np.arange(chunk * _CHUNK_ROWS, min((chunk + 1) * _CHUNK_ROWS, num_rows))
        embedded = rows_to_embed()[rows]
        chosen = texts().read(rows[embedded])
        vectors = np.full((len(rows), embedder().get_embedding_dimension()), np.nan, np.float32)
        show(0.0)
        # Batches are made within a chunk, since the last bits of a vector depend on its batch: so the result is the
        # same for any number of processes.
        batch_size = job.recipe.embed.batch_size
        vectors[embedded] = embed_texts(chosen, embedder(), batch_size=batch_size, on_progress=show)
        done += 1
        show(0.0)
        return {"vectors": vectors, "truncated": count_truncated(chosen, embedder())}

    folder = job.folder.work / "embeddings"
    return job.launch.compute_chunks(folder, num_chunks, compute, _write_chunk, finished=finished)


def _load(job: Job) -> Any:
    with job.launch.busy("loading the embedder"):
        trust = job.recipe.model.trust_remote_code
        return load_embedder(job.recipe.embed.model, device=str(resolve_device()), trust_remote_code=trust)


def _write_chunk(path: Path, arrays: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _read_chunk(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """Return the vectors of a chunk, and how many of its texts the embedder cut."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["vectors"], int(arrays["truncated"])


def _publish(job: Job, chunks: list[Path], stage: Stage) -> None:
    """Join the chunks to embeddings.npy, and remove chunks and texts."""
    embedded, truncated = _embedded(job), 0
    with stage.replacing(_path(job)) as temporary, open(temporary, "wb") as file:
        for number, path in enumerate(chunks):
            vectors, cut = _read_chunk(path)
            truncated += cut
            if number == 0:
                # The header of an .npy file, then chunk after chunk: all vectors need not fit into memory.
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(embedded), vectors.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(vectors.tobytes())
            job.launch.heartbeat.beat()
    missing = int((~embedded).sum())
    dropped = {"not_scored": missing} if missing else {}
    details = {"texts_cut_by_the_embedder": truncated, "digest": digest_of_blocks(_path(job))}
    stage.finish(Outcome(len(embedded), len(embedded) - missing, dropped, details))
    shutil.rmtree(job.folder.work / "embeddings")
    shutil.rmtree(job.folder.work / "texts")
