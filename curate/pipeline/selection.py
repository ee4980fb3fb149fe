"""The selection stage: scores and clusters to selections/NAME, with the kept records unchanged.

It reads the input a second time, because no copy of the records is kept. Which records are kept is decided in
`curate.selection`; this module reads and writes files around it.
"""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

from curate.config import Recipe, Select
from curate.pipeline.candidates import candidates, count_statuses
from curate.pipeline.clusters import cluster
from curate.pipeline.hand_over import hand_over
from curate.pipeline.job import Job
from curate.pipeline.needed import needs_embeddings, score_stages
from curate.pipeline.rows import ensure_rows
from curate.pipeline.verified import verified_selection
from curate.publish.card import write_card
from curate.publish.kept import write_kept
from curate.publish.records import describe_kept
from curate.runs.atomic import link_or_copy
from curate.runs.digests import digest_of_blocks
from curate.runs.keys import Key, fingerprint
from curate.runs.stage import Outcome, Stage
from curate.selection import Candidates, Rule, Selection, count_reasons
from curate.selection import select as choose
from curate.tables.digests import digest_of_values
from curate.tables.selection import count_selected_rows, write_selection
from curate.types import CurateError

TRAINED = ("adapter", "merged", "evaluation.json", "evaluation.parquet")
"""What training and evaluation write into the folder of a selection."""


def select(job: Job) -> None:
    """Write selections/NAME, if it is not finished. It neither scores nor loads a model.

    Raises:
        CurateError: there are no scores or embeddings yet; data or settings are not those that were scored; there are
            too few eligible records; an adapter of the selection would be lost.
    """
    job.launch.from_main(selection_stage(job.recipe.select.name), lambda: _select(job), bool)


def selection_stage(name: str) -> str:
    """Return the name of a selection's stage in the manifest."""
    return f"selections/{name}"


def _select(job: Job) -> bool:
    """Make the selection and the files for trainers; False if it was finished before."""
    recipe, folder = job.recipe, job.folder
    with job.launch.busy("selecting"):
        ensure_rows(job)
        if needs_embeddings(recipe.select):
            cluster(job)  # again, if cluster.* changed since `embed`
        target, name = folder.selection(recipe.select.name), selection_stage(recipe.select.name)
        # The names of the files follow from the input's format; those of the last selection say what must be there.
        written = (folder.stage(name) or {}).get("files", [])
        products = tuple(target / file for file in ("selection.parquet", *written))
        stage = Stage(folder, name, _key(job), products, rows=lambda: count_selected_rows(products[0]))
        if stage.is_finished():
            verified_selection(folder, recipe.select.name)
            hand_over(job, name)  # these files may be out of date: they also depend on train.*
            return False
        table = candidates(job, recipe.select)
        selection = choose(table, selection_rule(recipe.select, seed=selection_seed(recipe)))
        others = _files_to_keep(job, target, same=folder.is_done(name, stage.key))
        # A selection without an entry in the manifest is one of a killed call: the names of ours in it are ours.
        killed = folder.stage(name) is None and products[0].exists()
        with stage.replacing(target) as temporary:
            kept = _publish(job, selection, table, temporary)
            written = sorted(path.name for path in temporary.iterdir())
            for path in others:
                if path.name not in written:
                    link_or_copy(path, temporary)
                elif not killed and not _same(path, temporary / path.name):
                    raise CurateError(f"{path} has the name of a file of the selection, and is not one: move it")
    dropped = count_reasons(selection.reason)
    rows_out = dropped.pop("kept", 0)
    note = str(target / kept.name)
    stage.finish(
        Outcome(
            len(selection.kept),
            rows_out,
            dropped,
            {
                "file": kept.name,
                "files": written,
                "digest": digest_of_values(selection.kept),
                "digests": {kept.name: digest_of_blocks(target / kept.name)},
            },
            note,
        )
    )
    with job.launch.heartbeat.kept_up():
        hand_over(job, name)
    return True


def _files_to_keep(job: Job, target: Path, *, same: bool) -> list[Path]:
    """Return the files in the folder of a selection that stay when the selection is replaced.

    An adapter takes hours to train, and a selection a second to make. So `select` refuses to remove an adapter, and
    `run` keeps it until its own training has replaced it. Files that this package did not write always stay.

    Args:
        job: its select.name names the selection.
        target: the folder of the selection.
        same: whether the same selection is made again, because a file of it is missing; its adapter stays valid.

    Raises:
        CurateError: an adapter was trained on the selection that would be replaced.
    """
    if not target.is_dir():
        return []
    chosen = job.recipe.select
    trained = [target / name for name in TRAINED if (target / name).exists()]
    if trained and job.launch.verb != "run" and not chosen.replace and not same:
        raise CurateError(
            f"{target} holds {trained[0].name}, made with the selection that is there: choose another select.name, or "
            "remove it with select.replace=true"
        )
    stage = selection_stage(chosen.name)
    records = [record for name in (stage, f"{stage}/trainers") if (record := job.folder.stage(name))]
    # What an earlier call wrote is named in the manifest, so anything else is a person's.
    ours = {file for record in records for file in record.get("files", [])}
    others = [path for path in sorted(target.iterdir()) if path.name not in ours | set(TRAINED)]
    return others + (trained if same or (job.launch.verb == "run" and not chosen.replace) else [])


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _publish(job: Job, selection: Selection, table: Candidates, folder: Path) -> Path:
    """Write selection.parquet, the kept records and a data card into `folder`; return the file of the kept records."""
    recipe, source = job.recipe, job.settled.source
    folder.mkdir()
    scores_path = job.folder.path / "scores.parquet"
    write_selection(folder / "selection.parquet", selection, table, scores_path=scores_path)
    kept = write_kept(source, recipe.data, selection.kept, folder)
    about = _about(job, int(selection.kept.sum()), len(selection.kept))
    template = recipe.prompt.template
    assert template != "auto", "settled before anything was tokenised"
    write_card(
        describe_kept(kept, source, recipe.data), source, name=recipe.select.name, template=template, about=about
    )
    return kept


def selection_seed(recipe: Recipe) -> int:
    """Return the seed of a selection's random draws: select.seed, or run.seed if it is not set."""
    return recipe.run.seed if recipe.select.seed is None else recipe.select.seed


def selection_rule(chosen: Select, *, seed: int) -> Rule:
    """Return the rule for `curate.selection.select` that a section `select` describes; `seed` see `selection_seed`."""
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


def _key(job: Job) -> Key:
    """Return what a selection depends on: the records, their statuses, the scores that it reads, and its settings."""
    recipe, folder = job.recipe, job.folder
    # Not select.name and select.replace, which change no record; the seed only below, where something is drawn.
    chosen = recipe.select.model_dump(mode="json", exclude={"name", "seed", "replace"})
    key: dict[str, Any] = {
        "tokens": fingerprint(job.settled.tokens_key),
        "statuses": count_statuses(job),
        **{f"select.{name}": value for name, value in chosen.items()},
    }
    for stage in score_stages(recipe.select):
        record = folder.stage(stage)
        key[stage] = record["fingerprint"] if record else None  # a missing score is refused when it is read
    if needs_embeddings(recipe.select):
        clusters = folder.stage("clusters")
        assert clusters is not None
        key["clusters"] = clusters["fingerprint"]
    if recipe.select.method in ("random", "flexrand") or recipe.select.by == "random":
        key["seed"] = selection_seed(recipe)
    if recipe.data.holdout != 0:
        key |= {"data.holdout": recipe.data.holdout, "run.seed": recipe.run.seed}
    return key


def _about(job: Job, kept: int, total: int) -> str:
    """Return the sentences of the data card that say how the records were chosen."""
    chosen, model = job.recipe.select, Path(job.recipe.model.name).name
    ordered = "a uniform sample" if chosen.by == "random" else f"the {chosen.order} {chosen.by}"
    how = {
        "clusters": f"{ordered} of every embedding cluster",
        "top": f"{ordered} overall",
        "random": f"a uniform sample (seed {selection_seed(job.recipe)})",
        "longest": "the longest responses",
        "flexrand": f"FlexRand over {chosen.by} (gamma {chosen.gamma}, seed {selection_seed(job.recipe)})",
        "k_center": "k-center, farthest first in embedding space",
    }[chosen.method]
    return (
        f"{kept:,} of {total:,} records, chosen by curate (the Python package lc-curate): {how}. "
        f"Learning complexity was scored with {model}: 1 minus the mean confidence of its early exits in the "
        "response tokens; low is easy."
    )
