"""From scores and clusters to selections/NAME: the kept records, as they came in. The second pass over the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from curate.config.stages import Select
from curate.pipeline.clusters import cluster
from curate.pipeline.job import Job
from curate.publish.card import write_card
from curate.publish.kept import write_kept
from curate.run.folder import Key
from curate.run.stage import Outcome, Stage
from curate.selection import Candidates, Rule, Selection, count_reasons
from curate.selection import select as choose
from curate.tables.clusters import read_clusters
from curate.tables.score_columns import read_column, read_rows
from curate.tables.selection import write_selection
from curate.types import CurateError


def select(job: Job) -> None:
    """Bring the run to where selections/NAME is finished. Never scores and never loads a model.

    Raises:
        CurateError: no scores or embeddings yet; data or settings other than those scored; too few eligible records.
    """
    job.launch.lead(selection_stage(job.recipe.select.name), lambda: _select(job), bool)


def selection_stage(name: str) -> str:
    """A selection's name in the manifest."""
    return f"selections/{name}"


def _select(job: Job) -> bool:
    recipe, folder = job.recipe, job.folder
    scores = folder.stage("scores")
    if scores is None:
        raise CurateError(f"{folder.path} holds no scores yet: run curate score (or curate run) with this recipe")
    with job.launch.heartbeat.kept_up():
        if _needs_embeddings(recipe.select):
            cluster(job)
        target, name = folder.selection(recipe.select.name), selection_stage(recipe.select.name)
        products = [target / "selection.parquet"]
        if (record := folder.stage(name)) is not None:
            products.append(target / record["file"])
        stage = Stage(folder, name, _key(job, scores), tuple(products))
        if stage.is_finished():
            return False
        selection, labels = _choose(job)
        with stage.replacing(target) as temporary:
            kept = _publish(job, selection, labels, temporary)
    dropped = count_reasons(selection.reason)
    rows_out = dropped.pop("kept", 0)
    note = str(target / kept.name)
    stage.finish(Outcome(len(selection.kept), rows_out, dropped, {"file": kept.name}, note))
    return True


def _publish(job: Job, selection: Selection, labels: Any, folder: Path) -> Path:
    """Write the files of a selection; returns that of the kept records."""
    recipe, source = job.recipe, job.settled.source
    folder.mkdir()
    scores_path = job.folder.path / "scores.parquet"
    write_selection(folder / "selection.parquet", selection, scores_path=scores_path, labels=labels)
    kept = write_kept(source, recipe.data, selection.kept, folder)
    write_card(
        kept,
        source,
        recipe.data,
        name=recipe.select.name,
        model=recipe.train.model or recipe.model.name,
        about=_about(job, int(selection.kept.sum()), len(selection.kept)),
    )
    return kept


def _seed(job: Job) -> int:
    seed = job.recipe.select.seed
    return job.recipe.run.seed if seed is None else seed


def _choose(job: Job) -> tuple[Selection, Any]:
    chosen = job.recipe.select
    path = job.folder.path / "scores.parquet"
    rows = read_rows(path)
    names = {*chosen.within, chosen.by} - {"random"}
    columns = {
        name: read_column(path, name, exits=chosen.exits if name == chosen.by else None) for name in sorted(names)
    }
    clusters = job.folder.path / "clusters.parquet"
    labels = read_clusters(clusters) if clusters.exists() else None
    embeddings = job.folder.path / "embeddings.npy"
    table = Candidates(
        rows.status,
        rows.response_tokens,
        columns,
        clusters=labels,
        duplicate_ids=rows.duplicate_ids,
        embeddings=np.load(embeddings, mmap_mode="r") if _needs_embeddings(chosen) else None,
    )
    return choose(table, selection_rule(chosen, seed=_seed(job))), labels


def _needs_embeddings(chosen: Select) -> bool:
    return chosen.method in ("clusters", "k_center") or chosen.near_duplicates is not None


def selection_rule(chosen: Select, *, seed: int) -> Rule:
    """Return the section `select` as the rule that it stands for; `seed` is what select.seed comes to."""
    return Rule(
        keep=chosen.keep,
        method=chosen.method,
        by=chosen.by,
        order=chosen.order,
        quota=chosen.quota,
        min_response_tokens=chosen.min_response_tokens,
        within=chosen.within,
        gamma=chosen.gamma,
        duplicates=chosen.duplicates,
        near_duplicates=chosen.near_duplicates,
        group_quota=chosen.groups.quota if chosen.groups else "proportional",
        seed=seed,
    )


def _key(job: Job, scores: dict[str, Any]) -> Key:
    chosen = job.recipe.select.model_dump(mode="json", exclude={"name", "seed"})
    key = {"scores": scores["fingerprint"], **{f"select.{name}": value for name, value in chosen.items()}}
    if _needs_embeddings(job.recipe.select):
        clusters = job.folder.stage("clusters")
        assert clusters is not None
        key["clusters"] = clusters["fingerprint"]
    if job.recipe.select.method in ("random", "flexrand") or job.recipe.select.by == "random":
        key["seed"] = _seed(job)
    return key


def _about(job: Job, kept: int, total: int) -> str:
    chosen, model = job.recipe.select, Path(job.recipe.model.name).name
    how = {
        "clusters": f"the {chosen.order} {chosen.by} of every embedding cluster",
        "top": f"the {chosen.order} {chosen.by} overall",
        "random": f"a uniform sample (seed {_seed(job)})",
        "longest": "the longest responses",
        "flexrand": f"FlexRand over {chosen.by} (gamma {chosen.gamma}, seed {_seed(job)})",
        "k_center": "k-center, farthest first in embedding space",
    }[chosen.method]
    return (
        f"{kept:,} of {total:,} records, chosen by curate (the Python package lc-curate): {how}. "
        f"Learning complexity was scored with {model}: 1 minus the mean confidence of its early exits in the "
        "response tokens; low is easy."
    )
