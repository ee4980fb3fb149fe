"""The cluster stage: embeddings.npy to clusters.parquet. It loads no model, so that `select` may cluster again."""

from __future__ import annotations

import numpy as np

from curate.diversity.cluster import auto_count
from curate.diversity.cluster import cluster as k_means
from curate.pipeline.job import Job
from curate.pipeline.verified import verified_embeddings
from curate.runs.stage import Outcome, Stage
from curate.tables.clusters import count_clustered_rows, write_clusters
from curate.tables.digests import digest_of_values
from curate.types import CurateError


def cluster(job: Job) -> None:
    """Write clusters.parquet from the stored embeddings. Finished work is skipped. Called by the main process.

    Raises:
        CurateError: there are no embeddings yet, or they are of other data.
    """
    settings, path = job.recipe.cluster, job.folder.path / "clusters.parquet"
    seed = job.recipe.run.seed if settings.seed is None else settings.seed
    embedded = job.folder.stage("embeddings")
    if embedded is None:
        raise CurateError(
            f"{job.folder.path} holds no embeddings yet: run curate embed (or curate run) with this recipe"
        )
    # The embeddings' key also names the embedder; what they share with the tokens must be equal.
    names = job.settled.tokens_key.keys() & embedded["key"].keys()
    job.folder.require_same(
        "embeddings",
        {name: embedded["key"][name] for name in names},
        {name: job.settled.tokens_key[name] for name in names},
    )
    key = {
        "embeddings": embedded["fingerprint"],
        **{f"cluster.{name}": value for name, value in settings.model_dump(exclude={"seed"}).items()},
        "seed": seed,
    }
    stage = Stage(job.folder, "clusters", key, (path,), rows=lambda: count_clustered_rows(path))
    if stage.holds():  # not is_finished, which logs a line: every selection asks
        return
    embeddings = verified_embeddings(job)
    count = auto_count(embedded["out"]) if settings.count == "auto" else settings.count  # rows with a vector
    with job.launch.busy("clustering"):
        clusters = k_means(
            embeddings, count=count, spherical=settings.spherical, iterations=settings.iterations, seed=seed
        )
    with stage.replacing(path) as temporary:
        write_clusters(temporary, clusters.labels, clusters.distance)
    missing, num_clusters = int((clusters.labels < 0).sum()), len(clusters.centroids)
    details = {
        "clusters": num_clusters,
        "training_points": clusters.num_training_points,
        "sampled": clusters.sampled,
        "digest": digest_of_values(clusters.labels.astype(np.int32)),
    }
    dropped = {"not_embedded": missing} if missing else {}
    stage.finish(Outcome(len(embeddings), len(embeddings) - missing, dropped, details, f"{num_clusters} clusters"))
