r"""Many responses of one conversation, found from few renderings: nearly all turns of a long chat look alike.

Looking at each response takes renderings of all turns before it, so the time grows with the square of the turns. Here
ONE rendering with a stand-in for every content shows what the template writes between the contents:

    <|im_start|>user\n (1) <|im_end|>\n<|im_start|>assistant\n (2) <|im_end|>\n<|im_start|>user\n (3) ...

The real rendering must be the same with the real contents in place, or nothing is concluded. Responses with the same
words before and after them are alike. Of each such class the first, the last and a middle one are looked at one by one,
and where they agree (what a generation prompt adds, what ends a turn) the others follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from curate.tokens.prompts import Response
from curate.tokens.rendering import REFUSALS, Message, Render

_MARK = "\ufdd1"
_STAND_IN = re.compile(rf"{_MARK}(\d+){_MARK}")
Locate = Callable[[int], Response | None]


@dataclass(frozen=True, slots=True)
class Alike:
    """A rendered conversation and the means to render parts of it.

    restore  what `render` makes of a message's content
    tail     (earlier messages, render) -> what the template writes after a response that ends the conversation
    """

    messages: Sequence[Message]
    text: str
    render: Render
    restore: Callable[[str], str]
    tail: Callable[[Sequence[Message], Render], str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a content stands in the text, and what the template writes around it.

    previous       where the content before it stops
    before, after  the template's words up to the neighbouring contents
    """

    start: int
    stop: int
    previous: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What the responses of a class have in common.

    prompt   what earlier turns with a generation prompt add after the previous content
    silent   the template knows no generation prompt
    tail     what it writes after a last response
    """

    prompt: str
    silent: bool
    tail: str


def locate_alike(alike: Alike, answers: Sequence[int], locate: Locate) -> dict[int, Response | None]:
    """Give for each message of `answers` what locate gives, which is asked for few of them."""
    places = _places(alike)
    classes: dict[tuple[str, str] | None, list[int]] = {}
    for i in answers:
        place = places.get(i)
        classes.setdefault((place.before, place.after) if place else None, []).append(i)
    found: dict[int, Response | None] = {}
    for members in classes.values():
        found |= _locate_class(alike, members, places, locate)
    return {i: found[i] for i in answers}


def _locate_class(
    alike: Alike, members: Sequence[int], places: Mapping[int, _Place], locate: Locate
) -> dict[int, Response | None]:
    samples = sorted({*members[:2], members[len(members) // 2], *members[-2:]})
    found = {i: locate(i) for i in samples}
    if len(samples) == len(members):
        return found
    if members[0] in places:
        patterns = {_pattern(alike, i, places[i]) for i in samples}
        pattern = patterns.pop()
        if patterns or pattern is None or any(found[i] != _follow(alike.text, places[i], pattern) for i in samples):
            return {i: locate(i) for i in members}
        return {i: _follow(alike.text, places[i], pattern) for i in members}
    if places and not any(found.values()):
        return dict.fromkeys(members)  # the template shows none of them
    return {i: locate(i) for i in members}


def _places(alike: Alike) -> dict[int, _Place]:
    """Where each content that is not empty stands; nothing where the rendering is more than contents and gaps."""
    text = alike.text
    if _MARK in text:
        return {}
    try:
        skeleton = alike.render([_with_stand_in(i, message) for i, message in enumerate(alike.messages)], False)
    except REFUSALS:
        return {}
    first, *others = _STAND_IN.split(skeleton)
    numbers, gaps = [int(number) for number in others[::2]], others[1::2]
    if not text.startswith(first) or len(set(numbers)) < len(numbers):
        return {}
    places, position, before = {}, len(first), first
    previous = 0
    for i, after in zip(numbers, gaps, strict=True):
        length = _length(alike.restore(alike.messages[i]["content"]), text, position, after)
        if length is None:
            return {}
        stop = position + length
        places[i] = _Place(position, stop, previous, before, after)
        position, previous, before = stop + len(after), stop, after
    return places if position == len(text) else {}


def _with_stand_in(i: int, message: Message) -> Message:
    content = message["content"]
    return {**message, "content": f"{_MARK}{i}{_MARK}"} if content.strip() else message


def _length(content: str, text: str, position: int, after: str) -> int | None:
    """How much of text at a position is the content, perhaps stripped, with `after` behind it; None if it is not."""
    for shown in (content, content.strip(), content.strip("\n"), content.lstrip("\n"), content.rstrip()):
        if text.startswith(shown, position) and text.startswith(after, position + len(shown)):
            return len(shown)
    return None


def _pattern(alike: Alike, i: int, place: _Place) -> _Pattern | None:
    before = alike.messages[:i]
    if not any(message["role"] != "system" for message in before):
        return None  # such a response has no prompt
    prompt = alike.render(before, True)
    if not prompt.startswith(alike.text[: place.previous]):
        return None
    return _Pattern(prompt[place.previous :], alike.render(before, False) == prompt, alike.tail(before, alike.render))


def _follow(text: str, place: _Place, pattern: _Pattern) -> Response:
    """The response at a place by the rule of `chat`, given what the template writes around responses of its class."""
    start = place.start
    if text.startswith(pattern.prompt, place.previous):
        prompted = place.previous + len(pattern.prompt)
        start = start if pattern.silent and start > prompted else prompted
    close = place.stop + common_prefix(text[place.stop : place.stop + len(pattern.tail)], pattern.tail)
    return Response(min(start, place.stop), place.stop, close)


def common_prefix(a: str, b: str) -> int:
    """Count the characters with which both texts begin."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low
