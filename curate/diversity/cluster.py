"""Clusters embeddings by spherical or plain k-means, with FAISS; the only module that imports it.

The same embeddings, settings and seed give the same bits on one type of processor, at any number of threads. On another
type the last bits of the centroids may differ, since FAISS chooses its kernels by the processor's instructions.

Shapes: N rows, D dimensions, K clusters.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

MAX_TRAINING_POINTS = 262_144
"""k-means trains on all embedded rows up to this number (or 256 per cluster, if that is more), else on a sample."""

_ROUNDING = 1e-5  # larger than any error of float32 products of unit vectors
_BLOCK = 4096  # rows read from the memory map at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clusters:
    """The cluster of every row, and the centroids.

    labels               int32 [N], cluster from 0 to K - 1, none of them empty; -1 where the row has no embedding
    distance             float32 [N], distance to the centroid of the row's cluster: 1 - cosine if spherical, else
                         Euclidean (not squared); NaN where the row has no embedding
    centroids            float32 [K, D]; K is at most the number of clusters asked for
    num_training_points  number of rows that k-means trained on
    sampled              whether these are a sample of the embedded rows
    """

    labels: npt.NDArray[np.int32]
    distance: Float32Array
    centroids: Float32Array
    num_training_points: int
    sampled: bool


def auto_count(num_rows: int) -> int:
    """Return the number of clusters for `num_rows` embedded rows: sqrt(N / 2), rounded, within 8 and 1024, at most N.

    >>> [auto_count(n) for n in (5, 100, 9_229, 1_000_000, 10_000_000)]
    [5, 8, 68, 707, 1024]
    """
    return min(num_rows, max(8, min(1024, math.floor(math.sqrt(num_rows / 2) + 0.5))))


def cluster(embeddings: Float32Array, *, count: int, spherical: bool, iterations: int, seed: int) -> Clusters:
    """Train k-means on the embedded rows, then assign every row to its nearest centroid, ties to the lower cluster.

    Equal rows are always in the same cluster. Memory: the training points, and a few bytes for every row.

    Args:
        embeddings: float32 [N, D], which may be memory-mapped, since it is read in blocks. A row with a value that is
            not finite has no embedding. Rows must be unit vectors if `spherical`.
        count: number of clusters to make. Fewer are returned if there are fewer distinct rows, or if a centroid is
            nearest to no row: no returned cluster is empty.
        spherical: keep centroids on the unit sphere, and compare by cosine instead of Euclidean distance.
        iterations: rounds of k-means.
        seed: seed of the first centroids, and of the training sample.
    """
    embedded = np.concatenate([np.zeros(0, bool), *(np.isfinite(block).all(axis=1) for block in _blocks(embeddings))])
    num_embedded = int(np.count_nonzero(embedded))
    training_rows = _training_rows(embedded, max(MAX_TRAINING_POINTS, 256 * count), seed)
    centroids_KD = _train(embeddings[training_rows], min(count, num_embedded), spherical, iterations, seed)
    labels, distance, sizes_K = _assign(embeddings, embedded, centroids_KD, spherical)

    occurs_K = sizes_K > 0
    if (occurring := int(np.count_nonzero(occurs_K))) < count:
        logger.info("%d clusters were asked for, %d hold a row", count, occurring)
    # Numbers without gaps: if centroid 1 of three has no row, 0 and 2 become 0 and 1. The last entry keeps -1 as it is.
    renumbered = np.append(np.cumsum(occurs_K) - 1, -1).astype(np.int32)
    return Clusters(
        renumbered[labels],
        distance,
        centroids_KD[occurs_K],
        num_training_points=len(training_rows),
        sampled=len(training_rows) < num_embedded,
    )


def _blocks(embeddings: Float32Array) -> Iterator[Float32Array]:
    return (np.asarray(embeddings[start : start + _BLOCK]) for start in range(0, len(embeddings), _BLOCK))


def _training_rows(embedded: npt.NDArray[np.bool_], limit: int, seed: int) -> npt.NDArray[np.intp]:
    """Return the rows that k-means trains on, ascending: all embedded ones, or a random sample of `limit`."""
    rows = np.flatnonzero(embedded)
    if len(rows) <= limit:
        return rows
    logger.info("k-means trains on %d of %d embedded rows", limit, len(rows))
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def _train(points: Float32Array, count: int, spherical: bool, iterations: int, seed: int) -> Float32Array:
    """Return the centroids of k-means: float32 [count, D]."""
    if count == 0:
        return np.zeros((0, points.shape[1]), np.float32)
    kmeans = faiss.Kmeans(
        points.shape[1],
        count,
        niter=iterations,
        spherical=spherical,
        seed=seed,
        # By default FAISS trains on at most 256 points per cluster, and warns on stderr below 39.
        max_points_per_centroid=len(points),
        min_points_per_centroid=1,
    )
    kmeans.train(points)
    return np.asarray(kmeans.centroids, np.float32)


def _assign(
    embeddings: Float32Array, embedded: npt.NDArray[np.bool_], centroids_KD: Float32Array, spherical: bool
) -> tuple[npt.NDArray[np.int32], Float32Array, npt.NDArray[np.int64]]:
    """Return the nearest centroid [N] (-1 where not embedded), the distance to it [N] (NaN), and cluster sizes [K]."""
    labels = np.full(len(embeddings), -1, np.int32)
    distance = np.full(len(embeddings), np.nan, np.float32)
    sizes_K = np.zeros(len(centroids_KD), np.int64)
    for index, block in enumerate(_blocks(embeddings)):
        start = index * _BLOCK
        has = np.flatnonzero(embedded[start : start + len(block)])
        if not len(has):
            continue
        points = block[has]
        nearest = _nearest(points, centroids_KD, spherical)
        own = centroids_KD[nearest]
        labels[start + has] = nearest
        sizes_K += np.bincount(nearest, minlength=len(sizes_K))
        distance[start + has] = (
            np.maximum(1 - np.einsum("nd,nd->n", points, own), 0)  # rounding can give a cosine above 1
            if spherical
            else np.sqrt(np.einsum("nd,nd->n", points - own, points - own))
        )
    return labels, distance, sizes_K


def _nearest(points_ND: Float32Array, centroids_KD: Float32Array, spherical: bool) -> npt.NDArray[np.intp]:
    """Return the nearest centroid of every point, ties to the lower one; equal points always have the same one."""
    # A matrix product rounds differently from row to row, so equal points may get products that differ in the last
    # bits. Near ties are therefore decided again in float64, once for equal points. (FAISS's own search rounds in the
    # same way, and does not define ties.)
    #
    # argmin |x - c|^2 = argmax x.c - |c|^2 / 2; on the unit sphere the second term is the same for every centroid.
    offset_K = (centroids_KD.astype(np.float64) ** 2).sum(axis=1) / 2 * (not spherical)
    near_NK = points_ND @ centroids_KD.T - offset_K.astype(np.float32)
    nearest: npt.NDArray[np.intp] = np.argmax(near_NK, axis=1)
    best_N1 = np.take_along_axis(near_NK, nearest[:, None], axis=1)
    tied_NK = near_NK >= best_N1 - _ROUNDING * (1 + np.abs(best_N1))
    contested = np.flatnonzero(np.count_nonzero(tied_NK, axis=1) > 1)
    if len(contested):
        points, first, which = np.unique(points_ND[contested], axis=0, return_index=True, return_inverse=True)
        exact_NK = np.where(tied_NK[contested[first]], 0.0, -np.inf)
        for point, exact_K in zip(points.astype(np.float64), exact_NK, strict=True):
            tied = np.flatnonzero(exact_K == 0)
            exact_K[tied] = (centroids_KD[tied] * point).sum(axis=1) - offset_K[tied]
        nearest[contested] = np.argmax(exact_NK, axis=1)[which.ravel()]
    return nearest
