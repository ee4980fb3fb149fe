"""Finds the shipped recipes: inside the package in a wheel, at the top of the repository in a checkout."""

from __future__ import annotations

from pathlib import Path


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes. Its subfolder `accelerate/` has configurations for launches.

    A wheel has the repository's `recipes/` as `curate/recipes/`. A checkout has it beside the package, also where it is
    installed as editable.

    >>> (recipes_folder() / "small.yaml").is_file()
    True
    """
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"
