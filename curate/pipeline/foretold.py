"""An estimate and what it came to, together in the manifest of a run, whichever of the two was there first."""

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
    """Return the file beside a run folder in which an estimate waits until the run begins."""
    return folder.path.with_name(f"{folder.path.name}.estimate.json")


def keep_estimate(result: Estimate, recipe: Recipe, folder: RunFolder) -> Path | None:
    """Enter an estimate in the manifest of a run, or lay it beside the folder that is not there yet.

    Returns the file that holds it; None where a folder of somebody else's stands, or nothing can be written.
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
    except (CurateError, OSError) as error:
        logger.warning("the estimate was not stored: %s", error)
        return None
    return waiting_path(folder)


def enter_truth(recipe: Recipe, folder: RunFolder) -> None:
    """Take over an estimate of this very recipe that waits beside the folder, and enter beside it what came true."""
    path = waiting_path(folder)
    if path.is_file():
        try:
            waiting = json.loads(path.read_text(encoding="utf-8"))
            TypeAdapter(Estimate).validate_python(waiting)
        except (OSError, ValueError, ValidationError) as error:
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
    """The recipe as a person wrote it; where the run goes does not count."""
    text = json.dumps(recipe.model_dump(mode="json", exclude={"run": {"dir"}}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
