"""Reads the values of `section.key=value` words on the command line.

The value is what follows the first `=`. If the setting is text, the value is taken as it is. Otherwise it is a number,
`true`, `false`, `null`, text, a list `[2, 4]` or a mapping `{name: x}`. In lists and mappings text may be quoted.

Such a value is no YAML: it has no comments, anchors or tags, so that `#`, `&` and `!` may stand in it unquoted.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from curate.config import strict_yaml
from curate.types import CurateError

# Double quotes as in JSON, with escapes; single quotes as in YAML, where '' stands for one quote.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'', re.DOTALL)


def parse_word(text: str, annotation: Any, key: str) -> Any:
    """Return the value of `text` for a setting of the type `annotation`.

    >>> parse_word("my model #2", str, "model.name"), parse_word("null", str | None, "prompt.system")
    ('my model #2', None)
    >>> parse_word("[C #, 'a, b', 007]", tuple[str, ...], "model.allow_tokens")
    ['C #', 'a, b', '007']

    Raises:
        CurateError: a list or a mapping is broken; the message names the setting by `key`.
    """
    if takes_text(annotation):  # never parsed: a path or a prompt may begin with a bracket
        return _as_text(text, annotation)
    if text.startswith(("[", "{")):
        reader = _Reader(text, f"the value of {key}")
        value = reader.value("", annotation)
        reader.end()
        return value
    return _scalar(text)


def takes_text(annotation: Any) -> bool:
    """Say whether a setting is free text: `str` or `str | None`. Choices (Literal) and numbers are not."""
    return set(_kinds(annotation)) - {type(None)} == {str}


def annotation_of(recipe: type[BaseModel], *names: str) -> Any:
    """Return the type of a setting, or Any if there is no such section or key (checking the recipe then names it).

    >>> from curate.config.recipe import Recipe
    >>> annotation_of(Recipe, "data", "columns", "instruction")
    <class 'str'>
    """
    annotation: Any = recipe
    for name in names:
        annotation = _type_within(annotation, name)
    return annotation


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union type, without the validators of Annotated types.

    >>> _kinds(Annotated[str, "a validator"] | None)
    (<class 'str'>, <class 'NoneType'>)
    """
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for member in get_args(annotation) for kind in _kinds(member))
    return (annotation,)


def _type_within(annotation: Any, name: str | None) -> Any:
    """Return the type of the value under a key of a mapping or section, or of the elements of a list (name None)."""
    for kind in _kinds(annotation):
        if name is None and get_origin(kind) is tuple:
            return get_args(kind)[0]
        if name is not None and get_origin(kind) is dict:
            return get_args(kind)[1]
        if name is not None and isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields:
            return kind.model_fields[name].annotation
    return Any


def _as_text(text: str, annotation: Any) -> str | None:
    return None if text == "null" and type(None) in _kinds(annotation) else _unquoted(text)


def _unquoted(text: str) -> str:
    """Return text without its quotes, if one pair of quotes encloses all of it; any other text as it is."""
    if not _QUOTED.fullmatch(text):
        return text
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    try:
        return str(json.loads(text))  # understands escapes such as \n
    except ValueError:
        return text[1:-1]


def _scalar(text: str) -> Any:
    """Return the value of a plain word as in a recipe: a number, a boolean, null, or text."""
    text = text.strip()
    return _unquoted(text) if _QUOTED.fullmatch(text) else strict_yaml.scalar(text)


class _Reader:
    """Reads nested lists and mappings from left to right; `what` names the text in messages."""

    def __init__(self, text: str, what: str) -> None:
        self._text, self._what, self._at = text, what, 0

    def value(self, stops: str, annotation: Any) -> Any:
        """Return the next value, of the type `annotation`; a plain word ends before any character of `stops`."""
        self._skip()
        if self._here() == "[":
            return self._list(annotation)
        if self._here() == "{":
            return self._mapping(annotation)
        if takes_text(annotation):
            return self._word(stops, partial(_as_text, annotation=annotation))
        return self._word(stops, _scalar)

    def end(self) -> None:
        """Refuse text after the value."""
        self._skip()
        if self._at < len(self._text):
            raise self._refusal(f"nothing after the value, got {self._text[self._at :]!r}")

    def _list(self, annotation: Any) -> list[Any]:
        self._at += 1
        items: list[Any] = []
        while self._more("]", bool(items)):
            items.append(self.value(",]", _type_within(annotation, None)))
        return items

    def _mapping(self, annotation: Any) -> dict[str, Any]:
        self._at += 1
        items: dict[str, Any] = {}
        while self._more("}", bool(items)):
            key = str(self._word(":,}", _unquoted))
            if self._here() != ":":
                raise self._refusal(f"a colon after the key {key!r}")
            if key in items:
                raise self._refusal(f"every key once, got {key!r} twice")
            self._at += 1
            items[key] = self.value(",}", _type_within(annotation, key))
        return items

    def _more(self, close: str, begun: bool) -> bool:
        """Pass a comma, or the closing bracket of a list or mapping; say whether an item follows."""
        self._skip()
        if begun and self._here() == ",":
            self._at += 1  # [2, 4,] is allowed, as in YAML
            self._skip()
        elif begun and self._here() != close:
            raise self._refusal(f"a comma or {close!r}")
        if self._here() == close:
            self._at += 1
            return False
        if not self._here():
            raise self._refusal(f"{close!r} at the end")
        return True

    def _word(self, stops: str, meaning: Callable[[str], Any]) -> Any:
        """Return the next word: quoted text without its quotes, or what a plain word stands for by `meaning`."""
        self._skip()
        quoted = _QUOTED.match(self._text, self._at)
        if quoted:
            self._at = quoted.end()
            self._skip()
            return _unquoted(quoted[0])
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in stops:
            self._at += 1
        return meaning(self._text[start : self._at].strip())

    def _skip(self) -> None:
        while self._here().isspace():
            self._at += 1

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _refusal(self, expected: str) -> CurateError:
        return CurateError(f"{self._what}: expected {expected}")
