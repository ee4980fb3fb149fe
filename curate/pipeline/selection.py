"""From scores and clusters to selections/NAME: the kept records, as they came in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from curate.pipeline.clusters import cluster
from curate.pipeline.keys import refuse_other_data
from curate.publish.card import write_card
from curate.publish.kept import write_kept
from curate.read.files import open_source, source_sha256
from curate.run.atomic import replacing
from curate.run.folder import Key
from curate.run.job import Job, log_finished, log_stage
from curate.selection import Selection, count_reasons, keep_count, reason_codes
from curate.selection import select as choose
from curate.tables.clusters import read_clusters
from curate.tables.scores import read_scores
from curate.tables.selection import write_selection
from curate.types import CurateError


def select(job: Job) -> None:
    """Bring the run to where selections/NAME is finished. Never scores and never loads a model.

    Raises:
        CurateError: no scores or embeddings yet; data or settings other than those scored; too few eligible records.
    """
    job.lead(f"selection {job.recipe.select.name}", lambda: _select(job))


def selection_stage(name: str) -> str:
    """A selection's name in the manifest."""
    return f"selections/{name}"


def _select(job: Job) -> bool:
    started, recipe, folder = time.monotonic(), job.recipe, job.folder
    stage = folder.stage("scores")
    if stage is None:
        raise CurateError(f"{folder.path} holds no scores yet: run curate score (or curate run) with this recipe")
    source = open_source(recipe.data)
    with job.heartbeat.kept_up():
        refuse_other_data(folder, recipe, source_sha256(source))
        if recipe.select.method == "clusters":
            cluster(job)
        key = _key(job, stage)
        target, name = folder.selection(recipe.select.name), selection_stage(recipe.select.name)
        if folder.is_done(name, key) and (target / "selection.parquet").exists():
            log_finished(name)
            return False
        selection, labels = _choose(job)
        with replacing(target) as temporary:
            temporary.mkdir()
            write_selection(
                temporary / "selection.parquet",
                selection,
                scores_path=folder.path / "scores.parquet",
                labels=labels,
            )
            kept = write_kept(source, recipe.data, selection.kept, temporary)
            write_card(
                kept,
                source,
                recipe.data,
                name=recipe.select.name,
                model=recipe.train.model or recipe.model.name,
                about=_about(job, int(selection.kept.sum()), len(selection.kept)),
            )
            folder.forget(name)
    dropped = count_reasons(selection.reason)
    facts = {
        "in": len(selection.kept),
        "out": dropped.pop("kept", 0),
        "dropped": dropped,
        "file": kept.name,
        "seconds": round(time.monotonic() - started, 3),
    }
    folder.record(name, key, **facts)
    log_stage(name, facts, str(target / kept.name))
    return True


def _choose(job: Job) -> tuple[Selection, Any]:
    chosen = job.recipe.select
    scores = read_scores(job.folder.path / "scores.parquet", by=chosen.by, exits=chosen.exits)
    clusters = job.folder.path / "clusters.parquet"
    labels = read_clusters(clusters) if clusters.exists() else None
    reason = reason_codes(scores.status, scores.response_tokens, min_response_tokens=chosen.min_response_tokens)
    selection = choose(
        scores.score,
        reason=reason,
        count=keep_count(chosen.keep, len(scores.score)),
        method=chosen.method,  # type: ignore[arg-type]  # flexrand and k_center are not wired yet
        order=chosen.order,
        quota=chosen.quota,
        clusters=labels,
        duplicate_ids=scores.duplicate_ids if chosen.duplicates == "drop" else None,
        lengths=scores.response_tokens,
        seed=job.recipe.run.seed,
    )
    return selection, labels


def _key(job: Job, scores: dict[str, Any]) -> Key:
    chosen = job.recipe.select.model_dump(mode="json", exclude={"name"})
    key = {"scores": scores["fingerprint"], **{f"select.{name}": value for name, value in chosen.items()}}
    if job.recipe.select.method == "clusters":
        clusters = job.folder.stage("clusters")
        assert clusters is not None
        key["clusters"] = clusters["fingerprint"]
    if job.recipe.select.method == "random":
        key["seed"] = job.recipe.run.seed
    return key


def _about(job: Job, kept: int, total: int) -> str:
    chosen, model = job.recipe.select, Path(job.recipe.model.name).name
    how = {
        "clusters": f"the {chosen.order} {chosen.by} of every embedding cluster",
        "top": f"the {chosen.order} {chosen.by} overall",
        "random": f"a uniform sample (seed {job.recipe.run.seed})",
        "longest": "the longest responses",
    }[chosen.method]
    return (
        f"{kept:,} of {total:,} records, chosen by curate (the Python package lc-curate): {how}. "
        f"Learning complexity was scored with {model}: 1 minus the mean confidence of its early exits in the "
        "response tokens; low is easy."
    )
