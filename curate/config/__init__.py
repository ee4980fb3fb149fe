"""Reads, checks and writes recipes.

A recipe is a YAML mapping of sections (run, data, prompt, ...), and `section.key=value` words change it. Unknown keys,
duplicate keys and bad values are refused by name, with the nearest valid key.

In reading order:

    base.py         holds what all sections have in common
    inputs.py       defines the sections run, data, prompt, model
    stages.py       defines the sections score, embed, cluster, select, train
    proof.py        defines the sections evaluate, compare
    recipe.py       defines a whole recipe: all sections with their defaults
    words.py        reads the values of section.key=value words
    strict_yaml.py  reads and writes YAML strictly: no key twice, decimal numbers, no references
    recipe_file.py  reads a recipe from a file and words, and writes it
    places.py       finds the files that the paths of a recipe name, from wherever it is replayed
    explain.py      explains what is wrong with a recipe: key, what was expected, what came
    reference.py    describes every setting as text: values, default, what it does
    shipped.py      finds the shipped recipes
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
