"""K-means that repeats bit for bit, reads its points in blocks and leaves no empty cluster."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.diversity import cluster as module
from curate.diversity.cluster import auto_count, cluster

OPTIONS = {"spherical": True, "iterations": 10, "seed": 0}


def unit_rows(num_rows, dimension=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def blobs(sizes, dimension=32):
    """Unit rows around orthogonal centres, in random order, and which centre each belongs to."""
    truth = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(len(sizes), dimension, dtype=np.float32)[truth] + 0.02 * unit_rows(len(truth), dimension)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), truth


@pytest.mark.parametrize(
    ("num_rows", "count"),
    [(0, 0), (3, 3), (8, 8), (128, 8), (200, 10), (8_525, 65), (1_000_000, 707), (2_097_152, 1024), (10**8, 1024)],
)
def test_auto_count_by_hand(num_rows, count):
    assert auto_count(num_rows) == count


@pytest.mark.parametrize("spherical", [True, False])
def test_separate_blobs_become_clusters(spherical):
    rows, truth = blobs([50, 30, 20])
    clusters = cluster(rows, count=3, spherical=spherical, iterations=25, seed=2)
    pairs = set(zip(truth.tolist(), clusters.labels.tolist(), strict=True))
    assert len(pairs) == 3
    assert clusters.distance.max() < 0.1


@given(st.integers(1, 60), st.integers(1, 12), st.booleans(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_row_has_its_nearest_centroid_and_no_cluster_is_empty(num_rows, count, spherical, seed):
    rows = unit_rows(num_rows, 5, seed)
    clusters = cluster(rows, count=count, spherical=spherical, iterations=5, seed=seed)
    centroids = clusters.centroids.astype(np.float64)
    distance = (
        1 - rows.astype(np.float64) @ centroids.T
        if spherical
        else np.linalg.norm(rows[:, None].astype(np.float64) - centroids, axis=2)
    )
    np.testing.assert_allclose(clusters.distance, distance.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(
        np.take_along_axis(distance, clusters.labels[:, None], 1)[:, 0], distance.min(1), atol=1e-5
    )
    assert np.array_equal(np.unique(clusters.labels), np.arange(len(centroids)))
    assert len(centroids) <= min(count, num_rows)
    if spherical:
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("spherical", [True, False])
def test_distance_by_hand(spherical):
    rows = np.array([[1, 0], [0.6, 0.8]], np.float32)
    clusters = cluster(rows, count=1, spherical=spherical, iterations=5, seed=0)
    # One centroid: the mean (.8, .4), on the unit circle (2, 1) / sqrt(5).
    expected = 1 - 2 / np.sqrt(5) if spherical else np.hypot(0.2, 0.4)
    np.testing.assert_allclose(clusters.distance, expected, rtol=1e-5)


def test_a_row_without_embedding_has_no_cluster_and_moves_nothing():
    rows = unit_rows(200)
    with_gaps = np.insert(rows, [0, 17, 200], np.nan, axis=0)
    has = np.isfinite(with_gaps[:, 0])
    plain, gaps = cluster(rows, count=9, **OPTIONS), cluster(with_gaps, count=9, **OPTIONS)
    assert np.array_equal(gaps.labels[has], plain.labels)
    assert np.array_equal(gaps.centroids, plain.centroids)
    assert (gaps.labels[~has] == -1).all()
    assert np.isnan(gaps.distance[~has]).all()


def test_clusters_that_hold_a_row_are_numbered_without_gaps_and_other_rows_stay_without():
    rows = np.insert(np.tile(unit_rows(3), (5, 1)), [0, 9], np.nan, axis=0)
    clusters = cluster(rows, count=10, **OPTIONS)
    assert len(clusters.centroids) < 10
    assert np.unique(clusters.labels).tolist() == list(range(-1, len(clusters.centroids)))
    assert np.flatnonzero(clusters.labels < 0).tolist() == [0, 10]


def test_no_embeddings_give_no_clusters():
    clusters = cluster(np.full((3, 4), np.nan, np.float32), count=8, **OPTIONS)
    assert clusters.labels.tolist() == [-1, -1, -1]
    assert clusters.centroids.shape == (0, 4)


def test_fewer_rows_than_clusters_are_a_cluster_each():
    assert len(np.unique(cluster(unit_rows(5), count=20, **OPTIONS).labels)) == 5


@pytest.mark.parametrize("spherical", [True, False])
def test_equal_rows_share_a_cluster_wherever_they_stand(spherical):
    distinct = unit_rows(3, 384)
    truth = np.random.default_rng(0).integers(0, 3, module._BLOCK + 3)
    clusters = cluster(distinct[truth], count=10, spherical=spherical, iterations=10, seed=0)
    assert len(set(zip(truth.tolist(), clusters.labels.tolist(), strict=True))) == 3


def test_a_memory_map_gives_the_same_as_an_array(tmp_path):
    rows = unit_rows(2 * module._BLOCK + 100, 8)
    np.save(tmp_path / "rows.npy", rows)
    mapped = cluster(np.load(tmp_path / "rows.npy", mmap_mode="r"), count=20, **OPTIONS)
    assert np.array_equal(mapped.labels, cluster(rows, count=20, **OPTIONS).labels)


def test_all_points_train_below_the_limit_and_a_seeded_sample_above(monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAINING_POINTS", 1_000)
    rows = unit_rows(3_000, 4)  # FAISS alone would train on 256 points a cluster
    below, above = (cluster(some, count=3, **OPTIONS) for some in (rows[:1_000], rows))
    assert (below.num_training_points, below.sampled) == (1_000, False)
    assert (above.num_training_points, above.sampled) == (1_000, True)
    assert (above.labels >= 0).all()
    assert np.array_equal(above.centroids, cluster(rows, count=3, **OPTIONS).centroids)
    assert not np.array_equal(above.centroids, cluster(rows, count=3, **OPTIONS | {"seed": 1}).centroids)


def test_any_number_of_threads_gives_the_same_bits():
    code = (
        "import hashlib, numpy as np; from curate.diversity.cluster import cluster\n"
        "x = np.random.default_rng(0).normal(size=(9_000, 96)).astype(np.float32)\n"
        "x /= np.linalg.norm(x, axis=1, keepdims=True)\n"
        "for spherical in (True, False):\n"
        "    c = cluster(x, count=67, spherical=spherical, iterations=5, seed=3)\n"
        "    print(*(hashlib.sha256(a.tobytes()).hexdigest() for a in (c.labels, c.distance, c.centroids)))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 6
