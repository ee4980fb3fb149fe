"""Describes every setting as text: its values, its default and what it does.

The descriptions are written beside the settings themselves, in the modules that define the sections.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curate.config.recipe import Recipe
from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in words: its key, the values it takes, its default, and what it does."""

    key: str
    values: str
    default: str
    description: str


def sections() -> dict[str, type[BaseModel]]:
    """Return the sections of a recipe by name, in the order in which a run uses them."""
    found = {name: field.annotation for name, field in Recipe.model_fields.items()}
    return {name: section for name, section in found.items() if isinstance(section, type)}


def settings(section: str | None = None) -> list[Setting]:
    """Return the settings of a section, or of all.

    Raises:
        CurateError: there is no such section.
    """
    known = sections()
    if section is not None and section not in known:
        raise CurateError(f"expected a section among {', '.join(known)}, got {section!r}")
    chosen = known if section is None else {section: known[section]}
    return [setting for name, model in chosen.items() for setting in _settings_of(name, model)]


def as_markdown() -> str:
    """Return the reference page of all settings."""
    lines = ["# Every setting", "", "Written by `curate settings --markdown`; a test keeps it up to date.", ""]
    for name, model in sections().items():
        lines += [f"## {name}", "", (model.__doc__ or "").strip(), "", "| key | values | default | what it does |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| `{s.key}` | {_cell(s.values)} | {_cell(s.default)} | {_cell(s.description)} |" for s in settings(name)
        ]
        lines.append("")
    return "\n".join(lines)


def _settings_of(prefix: str, model: type[BaseModel]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        default = "" if field.default is PydanticUndefined else field.default
        if field.default_factory is not None:
            default = field.default_factory()  # type: ignore[call-arg]  # ours take no arguments
        yield Setting(f"{prefix}.{name}", values_of(field.annotation), _shown(default), field.description or "")


def values_of(annotation: Any) -> str:
    """Return the values that a type allows, in words.

    >>> values_of(int | Literal["auto"]), values_of(tuple[int, ...] | None)
    ('whole number or auto', 'list of whole number')
    """
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_of(inside[0])
    if origin in (Union, types.UnionType):
        # null is not listed as a value: it is the default of every setting that takes it.
        return " or ".join(dict.fromkeys(values_of(kind) for kind in inside if kind is not type(None)))
    if origin is Literal:
        return ", ".join(map(str, inside))
    if origin is tuple:
        return f"list of {values_of(inside[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return {bool: "true, false", int: "whole number", float: "number", str: "text"}.get(annotation, "any")


def _shown(value: Any) -> str:
    """Return a default as it is written in a recipe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _cell(text: str) -> str:
    return text.replace("|", "\\|")  # a bare | would start a new cell of the Markdown table
