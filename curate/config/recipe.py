"""Defines a whole recipe: all sections, each with its defaults."""

from __future__ import annotations

from pydantic import Field

from curate.config.base import Section
from curate.config.inputs import Data, Model, Prompt, Run
from curate.config.proof import Compare, Evaluate
from curate.config.stages import Cluster, Embed, Score, Select, Train


class Recipe(Section):
    """The settings of a whole run, by section."""

    run: Run = Field(default_factory=Run)
    data: Data = Field(default_factory=Data)
    prompt: Prompt = Field(default_factory=Prompt)
    model: Model = Field(default_factory=Model)
    score: Score = Field(default_factory=Score)
    embed: Embed = Field(default_factory=Embed)
    cluster: Cluster = Field(default_factory=Cluster)
    select: Select = Field(default_factory=Select)
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    compare: Compare = Field(default_factory=Compare)
