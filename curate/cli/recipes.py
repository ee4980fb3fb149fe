"""Finds the recipe that the words of a command line name, and the recipes that ship with the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from curate.cli.terminal import warn
from curate.config import Recipe, load_recipe
from curate.config.base import expand_home
from curate.config.places import find_paths, starting_folder
from curate.config.shipped import recipes_folder
from curate.runs.folder import COMPARISON_RECIPE, RECIPE, RECORDS, RunFolder
from curate.types import CurateError

_SETTING = re.compile(r"[A-Za-z_]+\.[A-Za-z_.]+=", re.DOTALL)


def recipe_of(words: Sequence[str], *, own: Sequence[str] = (RECIPE,)) -> Recipe:
    """Return the recipe that the words of a command name, changed by their settings.

    The first word may be a recipe file. Without one, and with neither data nor model among the settings, it is the
    first of the files `own` that run.dir holds. A recipe in a run folder works on that folder, even if the folder was
    moved. Code of a model runs only if a word of this command, or a recipe file that it names, allows it.

    Raises:
        CurateError: what `load_recipe` refuses.
    """
    words = list(words)
    path = Path(expand_home(words.pop(0))) if words and not _is_setting(words[0]) else None
    recipe = load_recipe(path, words)
    if path is not None:
        return _in_its_folder(recipe, path, words)
    found = next((path for name in own if (path := Path(recipe.run.dir) / name).is_file()), None)
    if recipe.data.path or recipe.model.name or found is None:
        return recipe
    return _without_trust(_in_its_folder(load_recipe(found, words), found, words), words=recipe)


def _without_trust(recipe: Recipe, *, words: Recipe) -> Recipe:
    """Return a recipe of a run folder without the settings that could run code or send data away.

    The person named only the folder, which may come from somebody else. So whether code of a model runs, task files
    (lm-eval runs Python that they name) and a judge (it is sent a key of the environment) are taken from `words`.
    """
    model = recipe.model.model_copy(update={"trust_remote_code": words.model.trust_remote_code})
    of_words = {"include_path": words.evaluate.include_path, "judge": words.evaluate.judge}
    for key, value in of_words.items():
        if getattr(recipe.evaluate, key) != value:
            warn(f"warning: evaluate.{key} of {recipe.run.dir}/recipe.yaml is left out: name that recipe to use it")
    evaluate = recipe.evaluate.model_copy(update=of_words)
    return recipe.model_copy(update={"model": model, "evaluate": evaluate})


def _is_setting(word: str) -> bool:
    """Say whether a first word is a setting and not a recipe file."""
    # `data.path` without a value counts as a setting, so that the message says what it lacks; unless it is a file.
    named = word.lstrip("-").partition(".")[0] in Recipe.model_fields
    return bool(_SETTING.match(word)) or word.startswith("-") or (named and not Path(word).exists())


def _in_its_folder(recipe: Recipe, path: Path, words: Sequence[str]) -> Recipe:
    """Return a recipe of a run folder with that folder as run.dir, and with its paths as they are found from here.

    A recipe that is not in a run folder is returned unchanged.

    Args:
        recipe: read from `path` and changed by `words`.
        path: the recipe file.
        words: the settings of the command.
    """
    folder = path.parent
    if path.name not in (RECIPE, COMPARISON_RECIPE) or not RunFolder(folder).holds_run():
        return recipe
    said = {word.partition("=")[0] for word in words}
    recorded = Path(load_recipe(path).run.dir)  # where the run was begun, whatever the words say
    if "run.dir" not in said and not (recorded.exists() and recorded.samefile(folder)):
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"dir": str(folder)})})
    if Path(recipe.data.path).name == RECORDS and "data.path" not in said and (folder / RECORDS).is_file():
        # Records from memory are stored in the run folder, and move with it.
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(folder / RECORDS)})})
    # Where the run was begun comes first: here may lie another file of the same name. A path from here stays relative.
    begun = starting_folder(folder, recorded)
    return find_paths(recipe, [Path() if begun == Path.cwd() else begun, folder, Path()], given=said)


def shipped_recipes() -> dict[str, str]:
    """Return the texts of the shipped recipes, by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(recipes_folder().glob("*.yaml"))}


def shipped_recipe(name: str) -> str:
    """Return the text of a shipped recipe.

    Raises:
        CurateError: there is no recipe of that name.
    """
    shipped = shipped_recipes()
    if name not in shipped:
        raise CurateError(f"expected one of {', '.join(shipped)}, got {name!r}")
    return shipped[name]
