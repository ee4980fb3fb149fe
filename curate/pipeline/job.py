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
    """What every stage gets.

    launch   where it runs, on which processes, and who is told of progress
    settled  the data, and the settings without `auto`; the same in every process
    loaded   tokenizers and models, each loaded once; every process has its own
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
