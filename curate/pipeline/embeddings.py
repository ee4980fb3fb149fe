"""From records to embeddings.npy, and on to clusters."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.diversity.embed import count_truncated, embedder_fingerprint, embedding_text, load_embedder
from curate.diversity.embed import embed as embed_texts
from curate.models.load import resolve_device
from curate.pipeline.clusters import cluster
from curate.pipeline.keys import read_key, refuse_other_data, settings, settle, settled
from curate.pipeline.scores import prepare_tokens
from curate.pipeline.settle import resolve
from curate.read.examples import read_examples
from curate.read.files import Source, open_source, source_sha256
from curate.run.atomic import replacing, write_json
from curate.run.folder import Key
from curate.run.job import Job, log_finished, log_stage
from curate.tables.scores import read_scored
from curate.tokens.store import open_tokens
from curate.types import STATUSES

_CHUNK_ROWS = 1024


def embed(job: Job) -> None:
    """Bring the run to where embeddings.npy and clusters.parquet are finished.

    Raises:
        CurateError: embeddings of other data or another embedder are in the way; the embedder cannot be had.
    """
    started = time.monotonic()
    prepared = job.lead("embeddings", lambda: _prepare(job))
    if not prepared["done"]:
        chunks = _embed_chunks(job, prepared["rows"], set(prepared["finished"]))
        if job.processes.is_main:
            _publish(job, _embedded(job), chunks, prepared["key"], started)
    if job.processes.is_main:
        cluster(job)


def _prepare(job: Job) -> dict[str, Any]:
    source, before = open_source(job.recipe.data), settled(job.folder)
    with job.heartbeat.kept_up():
        data = source_sha256(source)
        if before:
            refuse_other_data(job.folder, job.recipe, data)
        recipe = settle(job.recipe, before) if before else resolve(job.recipe, job.folder, source).recipe
    stage = job.folder.stage("embeddings")
    key = {
        "data": data,
        **settings(recipe),
        "embed.model": embedder_fingerprint(recipe.embed.model),
        "embed.text": recipe.embed.text,
        "embed.batch_size": recipe.embed.batch_size,
    }
    if stage is not None:
        job.folder.require_same("embeddings", stage["key"], key)
        if (job.folder.path / "embeddings.npy").exists():
            log_finished("embeddings")
            shutil.rmtree(job.folder.work / "embeddings", ignore_errors=True)
            return {"done": True}
    work, finished = job.folder.work / "embeddings", list[int]()
    if (unfinished := read_key(work)) is not None:
        job.folder.require_same("embeddings", unfinished, key)
        finished = job.finished_chunks(work, _read_chunk)
    else:
        with replacing(work) as temporary:
            temporary.mkdir()
            np.save(temporary / "rows.npy", _rows_to_embed(job, source))
            write_json(temporary / "key.json", key)
    return {"done": False, "key": key, "rows": len(_embedded(job)), "finished": finished}


def _embedded(job: Job) -> npt.NDArray[np.bool_]:
    """Which rows get a vector, as that was written down before the first chunk."""
    rows: npt.NDArray[np.bool_] = np.load(job.folder.work / "embeddings" / "rows.npy", allow_pickle=False)
    return rows


def _rows_to_embed(job: Job, source: Source) -> npt.NDArray[np.bool_]:
    """Which rows get a vector, bool [N]: those that were scored, or if scoring is still to come, that can be."""
    scores = job.folder.path / "scores.parquet"
    if scores.exists():
        return read_scored(scores)
    with job.heartbeat.kept_up():
        resolved = resolve(job.recipe, job.folder, source)
    prepare_tokens(job, source, resolved)
    return np.asarray(open_tokens(job.folder.work / "tokens").rows["status"] == STATUSES.index("scored"))


def _embed_chunks(job: Job, num_rows: int, finished: Collection[int]) -> list[Path]:
    recipe = job.recipe
    embedder, rows_to_embed = functools.cache(lambda: _load(job)), functools.cache(lambda: _embedded(job))
    examples = enumerate(read_examples(recipe.data, open_source(recipe.data)))
    done = 0

    def compute(chunk: int) -> dict[str, Any]:
        nonlocal done
        embedded = rows_to_embed()
        rows = range(chunk * _CHUNK_ROWS, min((chunk + 1) * _CHUNK_ROWS, num_rows))
        texts = []
        for row, example in examples:
            job.heartbeat.beat()
            if row in rows and embedded[row]:
                texts.append(embedding_text(example, recipe.embed.text))
            if row == rows[-1]:
                break
        vectors = np.full((len(rows), embedder().get_embedding_dimension()), np.nan, np.float32)
        vectors[embedded[rows.start : rows.stop]] = embed_texts(texts, embedder(), batch_size=recipe.embed.batch_size)
        done += len(texts)
        total = int(embedded.sum()) if job.processes.count == 1 else None
        job.advance("embeddings", done, total, "records")
        return {"vectors": vectors, "truncated": count_truncated(texts, embedder())}

    folder, num_chunks = job.folder.work / "embeddings", -(-num_rows // _CHUNK_ROWS)
    return job.compute_chunks(folder, num_chunks, compute, _write_chunk, finished=finished)


def _load(job: Job) -> Any:
    with job.heartbeat.kept_up():
        return load_embedder(job.recipe.embed.model, device=str(resolve_device()))


def _write_chunk(path: Path, arrays: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _read_chunk(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """The vectors of a chunk, and how many of its texts the embedder cut."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["vectors"], int(arrays["truncated"])


def _publish(job: Job, embedded: npt.NDArray[np.bool_], chunks: list[Path], key: Key, started: float) -> None:
    truncated = 0
    with replacing(job.folder.path / "embeddings.npy") as temporary, open(temporary, "wb") as file:
        for number, path in enumerate(chunks):
            vectors, cut = _read_chunk(path)
            truncated += cut
            if number == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(embedded), vectors.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(vectors.tobytes())
            job.heartbeat.beat()
    missing = int((~embedded).sum())
    facts = {
        "in": len(embedded),
        "out": len(embedded) - missing,
        "dropped": {"not_scored": missing} if missing else {},
        "texts_cut_by_the_embedder": truncated,
        "seconds": round(time.monotonic() - started, 3),
    }
    job.folder.record("embeddings", key, **facts)
    log_stage("embeddings", facts)
    shutil.rmtree(job.folder.work / "embeddings")
