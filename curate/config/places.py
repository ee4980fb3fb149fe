"""Finds the files that the paths of a recipe name, and keeps these paths as they were written.

Relative paths in a recipe start at the working folder of the person who wrote it. A run folder may be moved, or its
recipe replayed from another working folder. Its paths are then also looked for from the run folder, and from the folder
where the run was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from curate.config.recipe import Recipe

# Settings that can be paths. Some can also be a hub id, which is no path and stays as it is.
_PATHS = (
    ("data", "path"),
    ("model", "name"),
    ("embed", "model"),
    ("train", "model"),
    ("score", "columns"),
    ("score", "ifd", "model"),
    ("evaluate", "include_path"),
    ("evaluate", "sets", "path"),
)


def find_paths(recipe: Recipe, bases: Sequence[Path], *, given: Collection[str]) -> Recipe:
    """Return the recipe with every relative path joined to the first of the folders `bases` where the file exists.

    A path that exists in none of them (or is a hub id) stays as it is.

    Args:
        recipe: the recipe of a run folder.
        bases: the folders, in order of preference.
        given: settings (section.key) that the present command gave. Their paths start at its working folder and stay.
    """

    def find(key: str, value: str) -> str:
        if Path(value).is_absolute() or any(word == key or word.startswith(f"{key}.") for word in given):
            return value
        return next((str(base / value) for base in bases if (base / value).exists()), value)

    return _with_paths(recipe, find)


def restore_paths(recipe: Recipe, earlier: Recipe, folder: Path) -> Recipe:
    """Return the recipe with its paths written as in `earlier`, the recipe that is in the run folder.

    A path is only replaced where both name the same file. So a replay from another working folder leaves the recipe in
    the run folder as it was.
    """
    begun = starting_folder(folder, Path(earlier.run.dir))
    paths: dict[str, list[str]] = {}

    def note(key: str, value: str) -> str:
        paths.setdefault(key, []).append(value)
        return value

    def restore(key: str, value: str) -> str:
        return next((path for path in paths.get(key, []) if _leads_to(path, value, (begun, folder))), value)

    _with_paths(earlier, note)
    recipe = _with_paths(recipe, restore)
    if _leads_to(earlier.run.dir, str(folder), (begun,)):
        return recipe.model_copy(update={"run": recipe.run.model_copy(update={"dir": earlier.run.dir})})
    return recipe


def starting_folder(folder: Path, recorded: Path) -> Path:
    """Return the working folder that a run was begun in: the one from which its relative run.dir leads to `folder`.

    If the run folder does not end like the recorded run.dir, that is unknown, and `folder` itself is returned.

    >>> starting_folder(Path("/data/runs/first"), Path("runs/first")).as_posix()
    '/data'
    """
    parts, resolved = recorded.parts, folder.resolve()
    if recorded.is_absolute() or resolved.parts[-len(parts) :] != parts:
        return folder
    return Path(*resolved.parts[: -len(parts)])


def _leads_to(written: str, place: str, bases: Sequence[Path]) -> bool:
    """Say whether a relative path leads from one of the folders to a place, and the place exists."""
    here = Path(place)
    if Path(written).is_absolute() or not here.exists():
        return False
    return any((base / written).exists() and (base / written).samefile(here) for base in bases)


def _with_paths(recipe: Recipe, change: Callable[[str, str], str]) -> Recipe:
    """Return the recipe with every path that is set replaced by `change(section.key, path)`."""
    tree = recipe.model_dump(mode="json")
    for path in _PATHS:
        _change(tree, path, ".".join(path[:2]), change)
    return Recipe.model_validate(tree)


def _change(tree: Any, path: Sequence[str], key: str, change: Callable[[str, str], str]) -> None:
    """Change the setting at a path of keys in place; of a list on the way, every element is changed."""
    name, *rest = path
    if isinstance(tree, list):
        for item in tree:
            _change(item, path, key, change)
    elif isinstance(tree, dict) and tree.get(name):
        if rest:
            _change(tree[name], rest, key, change)
        else:
            tree[name] = change(key, tree[name])
