"""The recipe: `inputs`, `stages` and `proof` hold its sections, `recipe_file` reads and writes it.

A recipe is a YAML mapping of sections (run, data, prompt, ...); `section.key=value` words override it.
Unknown keys, duplicate keys and bad values are refused by name, with the nearest valid one.
"""

from curate.config.inputs import Data, Model, Prompt, Run
from curate.config.proof import Compare, Evaluate, EvaluationSet, Judge, Selector
from curate.config.recipe import Recipe
from curate.config.recipe_file import dump_recipe, load_recipe
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
]
