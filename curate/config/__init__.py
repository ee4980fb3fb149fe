"""The recipe: `sections` has a typed model per stage, `recipe_file` reads and writes it as strict YAML.

A recipe is a YAML mapping of sections (run, data, prompt, ...); `section.key=value` words override it.
Unknown keys, duplicate keys and bad values are refused by name, with the nearest valid one.
"""

from curate.config.recipe_file import dump_recipe, load_recipe
from curate.config.sections import Cluster, Data, Embed, Model, Prompt, Recipe, Run, Score, Select, Train

__all__ = [
    "Cluster",
    "Data",
    "Embed",
    "Model",
    "Prompt",
    "Recipe",
    "Run",
    "Score",
    "Select",
    "Train",
    "dump_recipe",
    "load_recipe",
]
