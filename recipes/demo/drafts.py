"""Defines a task of the demo data, and the small grammar that its texts need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """One task and its right response.

    instruction  what to do
    input        what to do it with; may be empty
    output       the right response
    answer       the essence of the response; a response with another answer is wrong for this task
    """

    instruction: str
    input: str
    output: str
    answer: str


def join(items: Sequence[str]) -> str:
    """Return the items as a list in a sentence.

    >>> join(["a"]), join(["a", "b"]), join(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[0].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """Return the count with the noun in singular or plural; a noun that ends in s stays as it is.

    >>> plural(1, "egg"), plural(2, "egg"), plural(2, "dozen eggs")
    ('1 egg', '2 eggs', '2 dozen eggs')
    """
    return f"{count} {noun}" if count == 1 or noun.endswith("s") else f"{count} {noun}s"
