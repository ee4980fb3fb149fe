"""Reads recipes from strict YAML and `section.key=value` words, and writes them; names a mistake by its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curate.config import strict_yaml
from curate.config.explain import explain
from curate.config.recipe import Recipe
from curate.config.words import annotation_of, parse_word
from curate.types import CurateError

_MAX_CHARACTERS = 1_000_000  # PyYAML takes a second for a few hundred thousand


def load_recipe(path: str | Path | None = None, words: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file (or the defaults), changed by `section.key=value` words.

    Words are for example `run.dir=~/x`, `score.exits=[2,4]`, `prompt.system=null` or
    `data.columns.instruction=question`; see `curate.config.words`.

    Raises:
        CurateError: there is no such file, or it is not YAML; a key is unknown or duplicate; a value is bad.

    >>> load_recipe(words=["select.keep=5%", "score.exits=[4, 2]"]).score.exits
    (2, 4)
    """
    tree = {} if path is None else _read(Path(path))
    for word in words:
        _change(tree, word)
    return _validated(tree)


def recipe_with(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some settings changed, given by "section.key" as Python values.

    >>> recipe_with(Recipe(), {"select.keep": "5%", "score.exits": [2, 4]}).score.exits
    (2, 4)

    Raises:
        CurateError: a key is unknown, or a value is bad.
    """
    tree = recipe.model_dump()
    for key, value in settings.items():
        section, dot, name = key.partition(".") if isinstance(key, str) else ("", "", "")
        if not dot or "." in name:
            raise CurateError(f'expected settings by "section.key", such as "score.exits", got {key!r}')
        tree.setdefault(section, {})[name] = str(value) if isinstance(value, Path) else value
    return _validated(tree)


def _validated(tree: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise CurateError(explain(error, Recipe, tree)) from None


def _change(tree: dict[str, Any], word: str) -> None:
    """Change a recipe, given as nested dictionaries, in place by a `section.key=value` word."""
    # Python decodes arguments that are not UTF-8 to lone surrogates, which no recipe file can hold.
    if not word.isprintable() and any("\ud800" <= c <= "\udfff" for c in word):
        raise CurateError(
            f"expected UTF-8 text, got {word!a}: rename such a file; where the terminal is not set to UTF-8, set "
            "PYTHONUTF8=1"
        )
    key, equals, text = word.partition("=")
    section, dot, name = key.partition(".")
    if not equals or not dot or word.startswith("-"):
        raise CurateError(f"expected section.key=value, got {word!r}{_spelling_hint(word)}")
    settings = tree.setdefault(section, {})
    if not isinstance(settings, dict):
        raise CurateError(f"recipe: {section} is a section with keys of its own, got {settings!r}")
    head, _, rest = name.partition(".")
    if not rest:
        settings[head] = parse_word(text, annotation_of(Recipe, section, head), key)
        return
    inner = settings.setdefault(head, {})  # as in data.columns.instruction=question
    if not isinstance(inner, dict):
        raise CurateError(f"recipe: {section}.{head} has no keys of its own")
    inner[rest] = parse_word(text, annotation_of(Recipe, section, head, rest), key)


def _spelling_hint(word: str) -> str:
    """Return a hint for a setting in the spelling of other programs: --data.path=x, data.path x or data.path: x."""
    bare = word.lstrip("-")
    section, dot, name = bare.partition("=")[0].rstrip(":").partition(".")
    if not dot or section not in Recipe.model_fields:
        return ""
    value = bare.partition("=")[2] or "VALUE"
    return f": settings are written {section}.{name}={value}, without dashes or blanks"


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, which `load_recipe` reads back to an equal recipe."""
    return strict_yaml.dump(recipe.model_dump(mode="json"))


def _read(path: Path) -> dict[str, Any]:
    """Return a recipe file as nested dictionaries, with {} for a section that is left empty."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_MAX_CHARACTERS + 1)
    except OSError as error:
        raise CurateError(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CurateError(f"the recipe {path} is not UTF-8 text") from None
    if len(text) > _MAX_CHARACTERS:
        raise CurateError(f"the recipe {path} has more than {_MAX_CHARACTERS:,} characters: is it a data file?")
    tree = strict_yaml.parse(text, f"the recipe {path}")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise CurateError(f"the recipe {path} is a mapping of sections, got {type(tree).__name__}")
    return {section: ({} if settings is None else settings) for section, settings in tree.items()}
