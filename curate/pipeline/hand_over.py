"""Writes the files with which other training programs train on a selection: TRL, axolotl, LLaMA-Factory."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np

from curate.config import Recipe
from curate.pipeline.job import Job
from curate.pipeline.verified import verified_kept, verified_selection
from curate.publish.records import describe_kept
from curate.runs.atomic import remove
from curate.runs.keys import Key, fingerprint
from curate.runs.manifest import StageRecord
from curate.runs.stage import Stage
from curate.types import CurateError

logger = logging.getLogger(__name__)


def hand_over(job: Job, selection_stage: str) -> None:
    """Write the files for other training programs into the folder of a selection, if they are not there.

    They depend on the settings of `train` too: after a change of these they are written again, and the records are not.
    If the model to train cannot be read, they are left out with a warning; the records are useful without them.

    Args:
        job: its select.name names the selection.
        selection_stage: the selection's name in the manifest.
    """
    selection = job.folder.stage(selection_stage)
    assert selection is not None, "the caller has just finished it"
    name = job.recipe.select.name
    folder = job.folder.selection(name)
    name_of_stage = f"{selection_stage}/trainers"
    old = (job.folder.stage(name_of_stage) or {}).get("files", [])
    products = tuple(folder / file for file in ("trl.yaml", *old))
    stage = Stage(job.folder, name_of_stage, _key(job, selection), products)
    if stage.holds():
        return
    # These files lie between those of the selection, so they cannot be replaced as one folder. They are written aside
    # and moved one by one; after a kill in between, the stage is not in the manifest and all are written again.
    job.folder.forget(stage.name)
    scratch = job.folder.work / f"trainers-{name}"
    remove(scratch)
    scratch.mkdir(parents=True)
    problem = _write(job, scratch, verified_selection(job.folder, name))
    files = [] if problem else sorted(path.name for path in scratch.iterdir())
    for file in {*files, *old}:  # also those that are not written any more: they describe earlier settings
        remove(folder / file)
    for file in files:
        os.replace(scratch / file, folder / file)
    remove(scratch)
    if problem:
        logger.warning("no files for other training programs are written: %s", problem)
        return
    seconds = round(time.monotonic() - stage.started, 3)
    facts = {"in": selection["out"], "out": selection["out"], "dropped": {}, "seconds": seconds, "files": files}
    job.folder.record(stage.name, stage.key, **facts)


def _write(job: Job, folder: Path, kept: Path) -> str | None:
    """Write the files into `folder`; return why the model to train cannot be read, or None."""
    # Here and not at the top: `select` imports this module, and mostly finds the files there.
    from curate.pipeline.features import saved_tokenizer, trained_model, training_features
    from curate.publish.trainers import write_trainers

    recipe = job.recipe
    try:
        tokenizer = saved_tokenizer(job, trained_model(recipe))
    except CurateError as error:
        return str(error)
    rows = np.flatnonzero(verified_kept(job.folder, recipe.select.name))
    features = (feature for _, feature in training_features(job, rows) if feature is not None)
    records = describe_kept(kept, job.settled.source, recipe.data)
    write_trainers(records, recipe, folder, features=features, tokenizer=tokenizer)
    return None


def _own_tokenizer(recipe: Recipe) -> str | None:
    """Return the fingerprint of the tokenizer in the folder train.model; None if it is no folder or cannot be read."""
    if not recipe.train.model:  # the key of the selection says with which tokenizer its tokens were made
        return None
    from curate.models.fingerprint import tokenizer_fingerprint
    from curate.models.locate import locate

    try:  # a model of the hub does not change, and may be out of reach
        return tokenizer_fingerprint(recipe.train.model) if locate(recipe.train.model).folder else None
    except CurateError:
        return None


def _key(job: Job, selection: StageRecord) -> Key:
    """Return what the files depend on: the selection, and the settings that they repeat."""
    recipe = job.recipe
    settings = recipe.train.model_dump(mode="json", exclude={"merge", "seed", "model"})
    return {
        "selection": selection["fingerprint"],
        "model.dtype": recipe.model.dtype,
        "train.model": fingerprint({"name": recipe.train.model}),  # hashed: it may be a path, and keys hold no paths
        "train.tokenizer": _own_tokenizer(recipe),
        "seed": recipe.run.seed if recipe.train.seed is None else recipe.train.seed,
        "prompt.max_length": recipe.prompt.max_length,
        "prompt.template": recipe.prompt.template,
        **{f"train.{key}": value for key, value in settings.items()},
    }
