"""Holds what all sections of a recipe have in common, and the types that several of them use."""

from __future__ import annotations

from os.path import expanduser
from typing import Annotated, Any, TypeGuard

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from curate.types import CurateError


def expand_home(path: str) -> str:
    """Return a path with ~ expanded.

    Raises:
        CurateError: ~ is followed by a name that no user has; a folder of that name would be made otherwise.
    """
    expanded = expanduser(path)
    if expanded.startswith("~"):
        user = expanded[1:].partition("/")[0]
        raise CurateError(f"{path}: there is no user {user!r} here; if a folder is called ~{user}, write ./{path}")
    return expanded


LocalPath = Annotated[str, AfterValidator(expand_home)]
"""A path or a hub id; ~ stands for the home folder."""


def is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Say whether a value of a recipe is a list."""
    return isinstance(value, (list, tuple))


class Section(BaseModel):
    """A section of a recipe: it cannot be changed, has no unknown keys, and takes booleans only where they are meant.

    YAML reads yes, no, on and off as booleans, and pydantic by itself would take True as the number 1. Text and numbers
    are such that file names, Arrow and C libraries can hold them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _boolean(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        takes_booleans = "bool" in str(field.annotation)
        if not takes_booleans and any(isinstance(v, bool) for v in (value if is_list(value) else [value])):
            raise ValueError("expected no boolean; YAML reads yes, no, on and off as booleans: quote them if words")
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):  # it looks by itself
            _refuse_odd(value)
        return value


def _refuse_odd(value: Any) -> None:
    """Refuse text with a NUL or half of a UTF-16 pair, and whole numbers of more than 64 bits, at any depth."""
    if isinstance(value, str):
        if odd := [c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"]:
            raise ValueError(f"expected text, got the character {odd[0]!a} in it, which no file can hold")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"expected a number of at most 64 bits, got {value:.3g}")
    elif isinstance(value, dict):
        _refuse_odd([*value.keys(), *value.values()])
    elif is_list(value):
        for item in value:
            _refuse_odd(item)


def parse_keep(value: object) -> int | str:
    """Return a share of the input rows as text ("10%") or a count as an integer; refuse everything else.

    Raises:
        ValueError: it is neither; 0.1 is refused too, as it could mean 10% or be meant as a count.

    >>> parse_keep("10%"), parse_keep("500"), parse_keep(20)
    ('10%', 500, 20)
    """
    # A share stays text, to be computed exactly later: in floats 0.29 * 50 is less than 14.5.
    try:
        fraction = float(str(value).strip().removesuffix("%"))
        whole = int(fraction)
    except (ValueError, OverflowError):
        raise ValueError(f'expected a share such as "10%" or a count, got {value!r}') from None
    if isinstance(value, str) and value.strip().endswith("%"):
        if not 0 < fraction <= 100:
            raise ValueError(f"a share lies above 0% and up to 100%, got {value!r}")
        return value.strip()
    if 0 < fraction < 1:
        raise ValueError(f'a share is written with a percent sign: expected "{100 * fraction:g}%", got {value!r}')
    if fraction != whole or fraction < 1:
        raise ValueError(f'expected a share such as "10%" or a whole count from 1, got {value!r}')
    return whole
