"""`curate estimate`: what a run will take, measured on a sample in a temporary folder. The run folder is only read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from curate.config import Recipe
from curate.pipeline.cost_of_scores import StageCosts, estimate_scores
from curate.pipeline.cost_of_stages import estimate_selection, estimate_training
from curate.pipeline.environment import environment
from curate.pipeline.probe_sample import count, take_sample
from curate.probe.estimate import PROCESSES, Estimate, StageEstimate
from curate.types import CurateError

_ASSUMPTIONS = (
    "Seconds are those of this machine as busy as it is now; every further process has a device, or as many cores, of "
    "its own.",
    "Scoring, embedding and training divide among processes; reading, tokenising, clustering, selecting and evaluating "
    "do not.",
    "Kept records are taken to be as long as all records (of select.method=longest: the longest).",
    "Lm-eval tasks, a judge and score.columns are not in it.",
    "Within one `curate run` the scoring model stays in memory while the adapter is trained.",
)


def estimate(recipe: Recipe, *, progress: Callable[[str, int, int | None, str], None] | None = None) -> Estimate:
    """Return what `curate run` with this recipe would take: records, tokens, seconds of every stage, memory.

    The run folder need not exist. If it does, settings that it has settled are used, and nothing is written into it.

    Args:
        recipe: see `curate.config.load_recipe`.
        progress: called with stage, done, total and unit.

    Raises:
        CurateError: data, models or settings that a run would refuse too.
    """
    started, show = time.monotonic(), progress or _silent
    with TemporaryDirectory(prefix="curate-estimate-") as name:
        folder = Path(name)
        show("estimate: tokens", 0, None, "")
        sample = take_sample(recipe, folder)
        counts = count(sample.store, sample.records)
        if not counts.scored:
            raise CurateError(f"none of the {counts.sampled} records of the sample can be scored ({counts.dropped})")
        recipe = sample.recipe
        per_record = sample.read_seconds + sample.token_seconds
        tokens = sample.fixed_seconds + sample.records * per_record
        # The same for any number of processes: the main one tokenises alone.
        found = [StageCosts((StageEstimate("tokens", (tokens,) * len(PROCESSES)),))]
        for what, measure in (
            ("scores", estimate_scores),
            ("selection", estimate_selection),
            ("training", estimate_training),
        ):
            show(f"estimate: {what}", 0, None, "")
            found.append(measure(sample, folder))
    # What every `auto` became, for a person to see. select.name says which selection of a run the estimate is compared
    # with.
    settings = {
        "data.format": recipe.data.format,
        "prompt.template": recipe.prompt.template,
        "prompt.max_length": recipe.prompt.max_length,
        "model.dtype": recipe.model.dtype,
        "score.tokens_per_batch": found[1].tokens_per_batch or recipe.score.tokens_per_batch,
        "select.name": recipe.select.name,
    }
    seconds = time.monotonic() - started
    device = str(environment(recipe)["device"])
    stages = tuple(stage for part in found for stage in part.stages)
    memory = tuple(peak for part in found for peak in part.memory)
    return Estimate(counts, stages, memory, device, settings, _ASSUMPTIONS, seconds)


def _silent(stage: str, done: int, total: int | None, unit: str) -> None:
    pass
