"""Explains what is wrong with a recipe: a line for every setting, with the key, what was expected and what came."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from curate.config.base import is_list
from curate.config.reference import values_of

# Errors that say only that a value is of another kind than one branch of a type; all branches together are named.
_OTHER_KIND = ("_type", "_parsing", "literal_error", "int_from_float")
_PHRASES = {
    "Input should be": "expected a value",
    "Tuple should have": "expected",
    " after validation": "",
    "String should match pattern": "expected text that matches the pattern",
}


def explain(error: ValidationError, recipe: type[BaseModel], tree: Any) -> str:
    """Return what is wrong with a recipe, with "; " between the lines; `tree` is the value that was refused.

    Where a type has several branches (a count, a list, ...), pydantic reports an error for each. Of these the ones that
    lie deepest in the value are said: they are of the branch that was meant.
    """
    by_setting: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for found in error.errors():
        path, kinds = _follow(found, recipe, tree)
        by_setting.setdefault(path[:2], []).append((len(path), _line(found, ".".join(path), kinds)))
    lines = [line for found in by_setting.values() for depth, line in found if depth == max(found)[0]]
    return "; ".join(dict.fromkeys(lines))


def _line(error: Any, key: str, kinds: Sequence[Any]) -> str:
    """Return one error as a line: the key, what was expected, what came."""
    got = f"got {error['input']!r}"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}; {_nearest(key, kinds)}"
    if error["type"] == "missing":
        return f"{key} is missing, {got}"
    if error["type"] == "value_error":  # of our own validators, whose messages say what they got
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    if any(error["type"].endswith(ending) for ending in _OTHER_KIND):
        expected = values_of(Union[tuple(kinds)])  # noqa: UP007 - of a tuple
        return f"{key}: expected {expected}{', written [one, another]' * ('list' in expected)}, {got}"
    message = error["msg"]
    for theirs, ours in _PHRASES.items():
        message = message.replace(theirs, ours)
    return f"{key}: {message}, {got}"


def _follow(error: Any, recipe: type[BaseModel], tree: Any) -> tuple[tuple[str, ...], list[Any]]:
    """Return the keys on the way to a value, and the branches of its type; of an unknown key, those around it.

    pydantic puts names of branches between the keys (`ifd`, `SmallModel`, `model`). What is no key of the value is such
    a name.
    """
    path: list[str] = []
    kinds: list[Any] = [recipe]
    for place, step in enumerate(error["loc"]):
        last = place == len(error["loc"]) - 1
        if is_list(tree):
            is_key = isinstance(step, int)
        else:
            is_key = isinstance(tree, Mapping) and (step in tree or (last and error["type"] == "missing"))
        if is_key:
            path.append(str(step))
            if not last:
                tree = tree[step]
            kinds = [b for kind in kinds for inner in _inside(kind, step) for b in _branches(inner)] or kinds
        elif not last:  # else no branch was meant
            kinds = [kind for kind in kinds if _is_model(kind) and kind.__name__ == step] or kinds
    return tuple(path), kinds


def _branches(annotation: Any) -> list[Any]:
    """Return the branches of a union; of any other type the type itself."""
    if get_origin(annotation) is Annotated:
        return _branches(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [branch for kind in get_args(annotation) for branch in _branches(kind)]
    return [annotation]


def _inside(kind: Any, step: str | int) -> list[Any]:
    """Return the type of what stands under a key or at a place of a value of type `kind`; [] if nothing can."""
    inside = get_args(kind)
    if _is_model(kind):
        return [kind.model_fields[step].annotation] if step in kind.model_fields else []
    if get_origin(kind) is dict:
        return [inside[1]]
    if get_origin(kind) is tuple and isinstance(step, int):
        return [inside[0]]
    return []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _nearest(key: str, kinds: Sequence[Any]) -> str:
    """Return a hint for an unknown key: the nearest valid one, or all of them."""
    section, dot, name = key.rpartition(".")
    valid = [name for kind in kinds if _is_model(kind) for name in kind.model_fields]
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {section}{dot}{near[0]}?" if near else f"valid: {', '.join(valid)}"
