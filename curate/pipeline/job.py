"""A job: one call of a verb, what was settled for it, and the models that it has loaded."""

from __future__ import annotations

from dataclasses import dataclass

from curate.config import Recipe
from curate.pipeline.loaded import Loaded
from curate.pipeline.settle import Settled
from curate.runs.folder import RunFolder
from curate.runs.launch import Launch


@dataclass(frozen=True, slots=True)
class Job:
    """What every stage is handed.

    launch   where it runs, on which processes, and whom to tell of progress
    settled  data and settings
    loaded   tokenizers and models, each loaded once
    """

    launch: Launch
    settled: Settled
    loaded: Loaded

    @property
    def recipe(self) -> Recipe:
        """The settled recipe."""
        return self.settled.recipe

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return self.launch.folder

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads the input and publishes."""
        return self.launch.processes.is_main
