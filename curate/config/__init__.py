"""Reads, checks and writes recipes.

A recipe is a YAML mapping of sections (run, data, prompt, ...); `section.key=value` words override it.
Unknown keys, duplicate keys and bad values are refused by name, with the nearest valid one.

In reading order:

    base.py         what every section has in common
    inputs.py       the sections run, data, prompt, model
    stages.py       the sections score, embed, cluster, select, train
    proof.py        the sections evaluate, compare
    recipe.py       a whole recipe: all sections with their defaults
    words.py        section.key=value words of the command line
    strict_yaml.py  YAML without surprises: no key twice, keys are words
    recipe_file.py  reads a recipe from a file and words, and writes it
    places.py       paths of a recipe, from wherever it is replayed
    reference.py    every setting with its default and description, as text
    shipped.py      where the shipped recipes are
"""

from curate.config.inputs import Data, Model, Prompt, Run
from curate.config.proof import Compare, Evaluate, EvaluationSet, Judge, Selector
from curate.config.recipe import Recipe
from curate.config.recipe_file import dump_recipe, load_recipe, recipe_with
from curate.config.stages import Cluster, Dropout, Embed, Groups, Masked, Score, Select, SmallModel, Train

__all__ = [
    "Cluster",
    "Compare",
    "Data",
    "Dropout",
    "Embed",
    "Evaluate",
    "EvaluationSet",
    "Groups",
    "Judge",
    "Masked",
    "Model",
    "Prompt",
    "Recipe",
    "Run",
    "Score",
    "Select",
    "Selector",
    "SmallModel",
    "Train",
    "dump_recipe",
    "load_recipe",
    "recipe_with",
]
