"""Paths of a recipe: found from where a run was begun, and kept as they were written.

Paths in a recipe are relative to the working folder of the person who wrote them. A run folder may be moved, or its
recipe replayed from another working folder: then they are looked for beside it and from where the run was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from curate.config.recipe import Recipe

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


def found_from(recipe: Recipe, bases: Sequence[Path], *, said: Collection[str]) -> Recipe:
    """Return the recipe with every relative path led from the first of the folders `bases` where something is.

    What stands nowhere (an id on the hub) stays, and so do the settings in `said` (section.key), which a command gave.
    """

    def found(key: str, value: str) -> str:
        if Path(value).is_absolute() or any(word == key or word.startswith(f"{key}.") for word in said):
            return value
        return next((str(base / value) for base in bases if (base / value).exists()), value)

    return _with_paths(recipe, found)


def as_written(recipe: Recipe, earlier: Recipe, folder: Path) -> Recipe:
    """Return the recipe with paths as `earlier`, the one that stands in the run folder, has them.

    So it is wherever both lead to the same place; a replay from another working folder then rewrites no path.
    """
    begun = begun_from(folder, Path(earlier.run.dir))
    before: dict[str, list[str]] = {}

    def noted(key: str, value: str) -> str:
        before.setdefault(key, []).append(value)
        return value

    def written(key: str, value: str) -> str:
        return next((old for old in before.get(key, []) if _leads_to(old, value, (begun, folder))), value)

    _with_paths(earlier, noted)
    recipe = _with_paths(recipe, written)
    if _leads_to(earlier.run.dir, str(folder), (begun,)):
        return recipe.model_copy(update={"run": recipe.run.model_copy(update={"dir": earlier.run.dir})})
    return recipe


def begun_from(folder: Path, recorded: Path) -> Path:
    """Return the folder that a recorded relative run.dir leads from to `folder`, if it ends alike; else `folder`."""
    parts, resolved = recorded.parts, folder.resolve()
    if recorded.is_absolute() or resolved.parts[-len(parts) :] != parts:
        return folder
    return Path(*resolved.parts[: -len(parts)])


def _leads_to(written: str, place: str, bases: Sequence[Path]) -> bool:
    """Whether a relative path leads from one of the folders to a place that is there."""
    here = Path(place)
    if Path(written).is_absolute() or not here.exists():
        return False
    return any((base / written).exists() and (base / written).samefile(here) for base in bases)


def _with_paths(recipe: Recipe, change: Callable[[str, str], str]) -> Recipe:
    """The recipe with `change(section.key, path)` in place of every path that is set."""
    tree = recipe.model_dump(mode="json")
    for path in _PATHS:
        _change(tree, path, ".".join(path[:2]), change)
    return Recipe.model_validate(tree)


def _change(tree: Any, path: Sequence[str], key: str, change: Callable[[str, str], str]) -> None:
    name, *rest = path
    if isinstance(tree, list):
        for item in tree:
            _change(item, path, key, change)
    elif isinstance(tree, dict) and tree.get(name):
        if rest:
            _change(tree[name], rest, key, change)
        else:
            tree[name] = change(key, tree[name])
