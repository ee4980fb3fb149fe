"""Where the responses stand in what a chat template wrote. Text only: no token is seen here.

A template is a program: what it wrote around a response is found by rendering other responses in its place, never by
knowing the template. That takes five renderings a response; where there are many, `alike` saves most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from curate.tokens.alike import Alike, common_prefix, locate_alike
from curate.tokens.prompts import Rendered, Response
from curate.tokens.rendering import Message, Render

FEW = 8
"""Up to so many responses are all looked for one by one."""


def chat(
    messages: Sequence[Message],
    render: Render,
    *,
    restore: Callable[[str], str] = str,
    is_too_long: Callable[[str, Response], bool] | None = None,
) -> Rendered:
    """Render the whole conversation, with every assistant turn that says something and can be seen in it.

    A response starts where the earlier turns with a generation prompt end; it stops before what the template writes
    after it. Where the rendering has no such prompt (the template knows none, or writes something else there), it
    starts where the rendering begins to depend on the response. An empty turn (`is_empty`) is no response.

    Templates that rewrite history (drop earlier thoughts, move the system text to the last turn) are followed: the
    text is what the model reads when it writes the last turn, and an earlier response is taken as it stands there.

    restore      what `render` makes of a message's content, if it does not show it as it stands
    is_too_long  (text, last response) -> whether nothing more need be known of this conversation, because it is
                 dropped; then the last response is the only one given

    Raises:
        jinja2.TemplateError: the template refuses the conversation (whatever `render` raises comes through).
    """
    text = render(messages, False)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and not is_empty(message)]

    def locate(i: int) -> Response | None:
        return _response(messages, i, text, render)

    if len(answers) <= FEW:
        found = {i: locate(i) for i in answers}
    elif is_too_long and (last := locate(answers[-1])) and is_too_long(text, last):
        found = {answers[-1]: last}
    else:
        found = locate_alike(Alike(messages, text, render, restore, _surroundings), answers, locate)
    return Rendered(text, tuple(response for response in found.values() if response is not None))


def is_empty(message: Message) -> bool:
    """Tell whether an assistant's message says nothing: no character that is not white space, and no tool call."""
    return not message["content"].strip() and not message.get("tool_calls")


def _response(messages: Sequence[Message], i: int, text: str, render: Render) -> Response | None:
    before, after = messages[:i], messages[i + 1 :]
    whole = render(messages[: i + 1], False) if after else text
    header, tail = _surroundings(before, (), render)
    if text.startswith(whole):
        close = len(whole)
        stop = close - _common_suffix(whole, tail)
    else:
        header, rest = _surroundings(before, after, render)
        if len(header) + len(rest) == len(text) and header + rest == text:
            return None  # the template shows nothing of this turn
        stop = len(text) - _common_suffix(text, rest)
        close = stop + common_prefix(text[stop:], tail)
    return Response(min(_start(before, text, header, render), stop), stop, close)


def _start(before: Sequence[Message], text: str, header: str, render: Render) -> int:
    header_length = common_prefix(text, header)
    if not any(message["role"] != "system" for message in before):
        return header_length  # many templates refuse a conversation without a user
    prompt = render(before, True)
    if not text.startswith(prompt):
        return header_length
    if header_length > len(prompt) and render(before, False) == prompt:
        return header_length  # the template knows no generation prompt: its header is no part of the response
    return len(prompt)


def _surroundings(before: Sequence[Message], after: Sequence[Message], render: Render) -> tuple[str, str]:
    """What the template writes before and after a response, whatever the response is.

    The stand-ins share no character, so exactly the surroundings are common to both renderings.
    """
    one, two = (render([*before, {"role": "assistant", "content": c}, *after], False) for c in ("x", "Q"))
    prefix = common_prefix(one, two)
    suffix = _common_suffix(one[prefix:], two[prefix:])
    return one[:prefix], one[len(one) - suffix :]


def _common_suffix(a: str, b: str) -> int:
    return common_prefix(a[::-1], b[::-1])
