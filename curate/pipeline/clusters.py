"""From embeddings.npy to clusters.parquet; light, so that a selection may cluster again without loading a model."""

from __future__ import annotations

import time

import numpy as np

from curate.diversity.cluster import auto_count
from curate.diversity.cluster import cluster as k_means
from curate.run.atomic import replacing
from curate.run.job import Job, log_stage
from curate.tables.clusters import write_clusters
from curate.types import CurateError


def cluster(job: Job) -> None:
    """Cluster the stored embeddings, unless that was done with the same settings.

    Raises:
        CurateError: no embeddings yet.
    """
    started, settings = time.monotonic(), job.recipe.cluster
    stage = job.folder.stage("embeddings")
    if stage is None:
        raise CurateError(
            f"{job.folder.path} holds no embeddings yet: run curate embed (or curate run) with this recipe"
        )
    key = {
        "embeddings": stage["fingerprint"],
        **{f"cluster.{name}": value for name, value in settings.model_dump().items()},
        "seed": job.recipe.run.seed,
    }
    path = job.folder.path / "clusters.parquet"
    if job.folder.is_done("clusters", key) and path.exists():
        return
    embeddings = np.load(job.folder.path / "embeddings.npy", mmap_mode="r")
    count = auto_count(stage["out"]) if settings.count == "auto" else settings.count
    with job.heartbeat.kept_up():
        clusters = k_means(
            embeddings,
            count=count,
            spherical=settings.spherical,
            iterations=settings.iterations,
            seed=job.recipe.run.seed,
        )
    with replacing(path) as temporary:
        write_clusters(temporary, clusters.labels, clusters.distance)
        job.folder.forget("clusters")
    missing = int((clusters.labels < 0).sum())
    facts = {
        "in": len(embeddings),
        "out": len(embeddings) - missing,
        "dropped": {"not_embedded": missing} if missing else {},
        "clusters": len(clusters.centroids),
        "training_points": clusters.num_training_points,
        "sampled": clusters.sampled,
        "seconds": round(time.monotonic() - started, 3),
    }
    job.folder.record("clusters", key, **facts)
    log_stage("clusters", facts, f"{len(clusters.centroids)} clusters")
