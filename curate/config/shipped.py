"""Where the shipped recipes are: below this package in a wheel, at the top of the repository in a checkout."""

from __future__ import annotations

from pathlib import Path


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes; `accelerate/` inside it holds configurations for launches.

    A wheel maps the repository's `recipes/` to `curate/recipes/`. A checkout, installed as editable or run in place,
    has it beside the package.

    >>> (recipes_folder() / "small.yaml").is_file()
    True
    """
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"
