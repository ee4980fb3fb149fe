"""Stores an estimate in the manifest of a run, and beside it what the run really took.

`curate estimate` may come before the run or after it. Before it there is no run folder yet; the estimate then waits in
a file beside the place of the folder, and the run takes it over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from curate.config import Recipe
from curate.probe.estimate import Estimate, as_object, compare_with_truth
from curate.runs.atomic import write_json
from curate.runs.folder import RunFolder
from curate.types import CurateError

logger = logging.getLogger(__name__)


def waiting_path(folder: RunFolder) -> Path:
    """Return the path of the file beside a run folder in which an estimate waits for the run."""
    return folder.path.with_name(f"{folder.path.name}.estimate.json")


def keep_estimate(result: Estimate, recipe: Recipe, folder: RunFolder) -> Path | None:
    """Store an estimate in the manifest of its run, or beside the folder if there is no run yet.

    Returns:
        The file that holds it; None if the folder is not that of a run, or if nothing can be written.
    """
    found = {**as_object(result), "recipe": _digest(recipe)}
    try:
        if folder.holds_run():
            with folder.lock():
                folder.describe(estimate=_beside_truth(found, folder))
            return folder.path / "manifest.json"
        if folder.path.exists():
            return None
        write_json(waiting_path(folder), found)
    except (CurateError, OSError) as error:  # it was printed: that it cannot be stored is no reason to fail
        logger.warning("the estimate was not stored: %s", error)
        return None
    return waiting_path(folder)


def enter_truth(recipe: Recipe, folder: RunFolder) -> None:
    """Enter in the manifest what the stages really took, beside an estimate if there is one.

    An estimate that waits beside the folder is taken over first, if it was made of exactly this recipe.
    """
    path = waiting_path(folder)
    if path.is_file():
        try:
            waiting = json.loads(path.read_text(encoding="utf-8"))
            TypeAdapter(Estimate).validate_python(waiting)
        except (OSError, ValueError, ValidationError) as error:  # the run has done its work, and must not fail here
            logger.warning("%s is no estimate and was left where it is: %s", path, str(error).splitlines()[0])
        else:
            if waiting.get("recipe") == _digest(recipe):
                folder.describe(estimate=waiting)
                path.unlink()
    if (found := folder.manifest().get("estimate")) is not None:
        folder.describe(estimate=_beside_truth(found, folder))


def _beside_truth(found: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    rows = compare_with_truth(TypeAdapter(Estimate).validate_python(found), folder.manifest())
    truth = [{"what": r.what, "unit": r.unit, "estimated": r.estimated, "true": r.true, "ratio": r.ratio} for r in rows]
    return {**found, "truth": truth}


def _digest(recipe: Recipe) -> str:
    """Return the SHA-256 (hex) of a recipe as it was written. run.dir does not count."""
    # The waiting file lies beside the run folder, and run.dir can be written in several ways.
    text = json.dumps(recipe.model_dump(mode="json", exclude={"run": {"dir"}}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
