"""What a task of the demo data is made of, and the small grammar its texts need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """One task and its right response.

    answer  what the response comes down to; a response with another answer is wrong for this task
    """

    instruction: str
    input: str
    output: str
    answer: str


def join(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """The text with a capital letter in front."""
    return text[0].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """'1 egg', '2 eggs'; nouns that are plural already stay."""
    return f"{count} {noun}" if count == 1 or noun.endswith("s") else f"{count} {noun}s"
