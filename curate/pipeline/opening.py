"""Opens a job: locks the run folder, and settles the recipe once for all stages that follow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.config import Recipe
from curate.pipeline.given import Given, put_records
from curate.pipeline.job import Job
from curate.pipeline.loaded import Loaded
from curate.pipeline.settle import Settled, settle
from curate.runs.folder import RunFolder
from curate.runs.launch import Launch, Progress, open_launch

# The verbs that compute scores. They need torch, and they compare the scoring model with the one that the run used.
_SCORING_VERBS = ("run", "score", "compare")


@contextmanager
def open_job(
    verb: str, recipe: Recipe, *, begin: bool, progress: Progress | None = None, given: Given | None = None
) -> Iterator[Job]:
    """Lock the run folder of a recipe, and give a job in it with every `auto` settled.

    Args:
        verb: for status.json.
        recipe: see `curate.config.load_recipe`.
        begin: whether the verb may begin a run; else the folder must be that of a run.
        progress: called with stage, done, total (None if unknown) and unit.
        given: records and a model in memory, if there are any.

    Raises:
        CurateError: the folder is not that of a run, or the recipe does not fit what is in it.
    """
    folder, hang_timeout = RunFolder(Path(recipe.run.dir)), recipe.run.hang_timeout
    with open_launch(folder, verb, begin=begin, progress=progress or _silent, hang_timeout=hang_timeout) as launch:
        yield _settled_job(launch, recipe, verb, given or Given())


def _settled_job(launch: Launch, recipe: Recipe, verb: str, given: Given) -> Job:
    """Settle the recipe in the main process, and give every process the same job."""
    trust = recipe.model.trust_remote_code
    loaded = Loaded(trust_remote_code=trust, offload_folder=launch.folder.work / "offload", in_memory=given.model)

    def prepare() -> Settled:
        with launch.busy("looking at data and model"):
            if given.records is not None:  # first: settling reads the file that they are written to
                put_records(launch.folder, given.records)
            return settle(recipe, launch.folder, loaded, ask_model=verb in _SCORING_VERBS)

    settled = launch.from_main("settings", prepare, Settled)
    if verb in _SCORING_VERBS:
        _keep_threads(launch.folder)
    return Job(launch, settled, loaded)


def _keep_threads(folder: RunFolder) -> None:
    """Use as many threads as the run began with, if this machine has that many cores.

    On a CPU the last bits of a score depend on the number of threads.
    """
    import torch

    manifest = folder.manifest()
    threads = manifest.get("threads")
    if manifest.get("device") == "cpu" and isinstance(threads, int) and 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)


def _silent(stage: str, done: int, total: int | None, unit: str) -> None:
    pass
