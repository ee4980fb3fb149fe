r"""Locates the many responses of a long chat from few renderings, since a template writes nearly all turns alike.

Locating a response by itself (`curate.tokens.chat`) renders all turns before it, so the time grows with the square of
the number of turns. Here ONE rendering, with a stand-in for every content, shows what the template writes between the
contents:

    <|im_start|>user\n (1) <|im_end|>\n<|im_start|>assistant\n (2) <|im_end|>\n<|im_start|>user\n (3) ...

The real rendering must be the same text with the real contents in place; otherwise nothing is concluded from it.
Responses with the same template text before and after them form a class. A few of each class (the first two, a middle
one, the last two) are located by themselves. Where these agree on what a generation prompt adds and on what ends a
turn, the positions of the others follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from curate.tokens.prompts import Response
from curate.tokens.rendering import REFUSALS, Message, Render

_MARK = "\ufdd1"  # a noncharacter: Unicode keeps it out of texts
_STAND_IN = re.compile(rf"{_MARK}(\d+){_MARK}")
_HIDDEN = ()  # class of the messages whose content is nowhere in the text
Locate = Callable[[int], Response | None]


@dataclass(frozen=True, slots=True)
class Alike:
    """A rendered conversation, with the functions that render parts of it.

    text          the rendering of all messages
    restore       what `render` makes of a message's content
    surroundings  (messages before, messages after, render) -> what the template writes before and after a response
    """

    messages: Sequence[Message]
    text: str
    render: Render
    restore: Callable[[str], str]
    surroundings: Callable[[Sequence[Message], Sequence[Message], Render], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Place:
    """What the positions of the contents tell about where a response stands in the text.

    previous, following  where the content before it stops, and where the one after it starts
    start, stop          its own content; None for a tool call without content
    kind                 the class: the template text before and after it, or the roles around a tool call
    """

    previous: int
    following: int
    start: int | None
    stop: int | None
    kind: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What the responses of a class have in common.

    prompt   what the template writes after the previous content when a generation prompt is asked for
    silent   whether the template has no generation prompt
    header   what the template writes between the previous content and a response
    tail     what the template writes after a response that ends the conversation, or after a tool call
    rest     what stands between a response with tool calls and the following content; None without tool calls
    """

    prompt: str
    silent: bool
    header: str
    tail: str
    rest: str | None


def locate_alike(alike: Alike, answers: Sequence[int], locate: Locate) -> dict[int, Response | None]:
    """Return for each message of `answers` what `locate` would return, calling `locate` for few of them."""
    spans = _spans(alike)
    classes: dict[tuple[str, ...], list[int]] = {}
    places = {i: place for i in answers if (place := _place(alike, i, spans))}
    for i in answers:
        kind = ("calls",) if alike.messages[i].get("tool_calls") else _HIDDEN
        classes.setdefault(places[i].kind if i in places else kind, []).append(i)
    found: dict[int, Response | None] = {}
    for members in classes.values():
        found |= _locate_class(alike, members, places, locate)
    hidden = classes.get(_HIDDEN, [])
    if spans and not any(found[i] for i in hidden if i in found):
        found |= dict.fromkeys(hidden)  # the template shows none of them
    return {i: found[i] if i in found else locate(i) for i in answers}


def _locate_class(
    alike: Alike, members: Sequence[int], places: Mapping[int, _Place], locate: Locate
) -> dict[int, Response | None]:
    """Locate the responses of a class; only the samples, where these do not agree."""
    samples = sorted({*members[:2], members[len(members) // 2], *members[-2:]})
    found = {i: locate(i) for i in samples}
    if len(samples) == len(members) or members[0] not in places:
        return found
    patterns = {_pattern(alike, i, places[i], found[i]) for i in samples}
    pattern = patterns.pop()
    # The pattern must reproduce every sample, or the others are not derived from it either.
    if patterns or pattern is None or any(found[i] != _follow(alike.text, places[i], pattern) for i in samples):
        return found
    return found | {i: way for i in members if (way := _follow(alike.text, places[i], pattern))}


def _place(alike: Alike, i: int, spans: Mapping[int, _Span]) -> _Place | None:
    """Return the place of a message, from its own content and, if it calls tools, from those beside it."""
    messages, own = alike.messages, spans.get(i)
    if own and not messages[i].get("tool_calls"):
        return _Place(own.previous, own.stop + len(own.after), own.start, own.stop, (own.before, own.after))
    left, right = own or spans.get(i - 1), spans.get(i + 1)
    if not (left and right and right.previous == left.stop):
        return None  # something else may stand between the call and the following content
    kind = (own.before if own else "", "calls", messages[i - 1]["role"], messages[i + 1]["role"])
    if own:
        return _Place(own.previous, right.start, own.start, own.stop, kind)
    return _Place(left.stop, right.start, None, None, kind)


@dataclass(frozen=True, slots=True)
class _Span:
    """A content in the text.

    start, stop    the content, text[start:stop]
    previous       where the content before it stops
    before, after  template text up to the contents before and after it
    """

    start: int
    stop: int
    previous: int
    before: str
    after: str


def _spans(alike: Alike) -> dict[int, _Span]:
    """Find each content that is not empty; nothing where the text is not contents with fixed template text between."""
    text = alike.text
    if _MARK in text:
        return {}
    try:
        skeleton = alike.render([_with_stand_in(i, message) for i, message in enumerate(alike.messages)], False)
    except REFUSALS:
        return {}
    # split() returns text, number, text, number, text: the numbers in brackets of the pattern come too.
    first, *others = _STAND_IN.split(skeleton)
    numbers, gaps = [int(number) for number in others[::2]], others[1::2]
    if not text.startswith(first) or len(set(numbers)) < len(numbers):
        return {}
    spans: dict[int, _Span] = {}
    position, previous, before = len(first), 0, first
    for i, after in zip(numbers, gaps, strict=True):
        length = _length(alike.restore(alike.messages[i]["content"]), text, position, after)
        if length is None:
            return {}
        stop = position + length
        spans[i] = _Span(position, stop, previous, before, after)
        position, previous, before = stop + len(after), stop, after
    return spans if position == len(text) else {}


def _with_stand_in(i: int, message: Message) -> Message:
    content = message["content"]
    return {**message, "content": f"{_MARK}{i}{_MARK}"} if content.strip() else message


def _length(content: str, text: str, position: int, after: str) -> int | None:
    """Return the length of the content as it stands in the text, with `after` behind it; None if it is not there."""
    # Many templates strip a content: on both sides, or only line breaks, or only on one side.
    for shown in (content, content.strip(), content.strip("\n"), content.lstrip("\n"), content.rstrip()):
        if text.startswith(shown, position) and text.startswith(after, position + len(shown)):
            return len(shown)
    return None


def _pattern(alike: Alike, i: int, place: _Place, found: Response | None) -> _Pattern | None:
    """Return what one located response shows of its class; None where it shows nothing that others could follow."""
    before, text = alike.messages[:i], alike.text
    if found is None or not any(message["role"] != "system" for message in before):
        return None  # without a user turn before it a response has no prompt
    prompt = alike.render(before, True)
    header, tail = alike.surroundings(before, (), alike.render)
    if not (prompt.startswith(text[: place.previous]) and header.startswith(text[: place.previous])):
        return None
    silent = alike.render(before, False) == prompt
    rest = None
    if alike.messages[i].get("tool_calls"):  # a call may end with words of its own (Llama 3's <|eom_id|>)
        rest, tail = text[found.stop : place.following], text[found.stop : found.close]
    return _Pattern(prompt[place.previous :], silent, header[place.previous :], tail, rest)


def _follow(text: str, place: _Place, pattern: _Pattern) -> Response | None:
    """Derive the response at a place from its class's pattern, by the rule of `chat`; None where it does not fit."""
    previous, header = place.previous, pattern.header
    start = place.start
    if start is None:
        start = previous + common_prefix(text[previous : previous + len(header)], header)
    if text.startswith(pattern.prompt, previous):
        prompted = previous + len(pattern.prompt)
        start = start if pattern.silent and start > prompted else prompted
    stop = place.stop
    if stop is None or pattern.rest is not None:
        stop = place.following - len(pattern.rest or "")
        if stop < max(start, place.stop or 0) or not text.startswith(pattern.rest or "", stop):
            return None
    close = stop + common_prefix(text[stop : stop + len(pattern.tail)], pattern.tail)
    return Response(min(start, stop), stop, close)


def common_prefix(a: str, b: str) -> int:
    """Count the characters that both texts begin with.

    >>> common_prefix("<user> a", "<user> b")
    7
    """
    # Bisection with slices: comparing whole slices is fast, a loop over characters in Python is not.
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low
