"""Runs a tokenizer's chat template, at a fixed date and time.

A template is a program that comes with the model. It may read the clock (`strftime_now`, as Llama 3's does), and then
the same record is another text tomorrow. So every rendering of a run is made for the same moment. What else would give
the same record another text is refused: random draws, and objects that Python prints with their address in memory.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError

from curate.tokens.deadline import OverdueError, deadline
from curate.types import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]
"""(messages, add_generation_prompt) -> text; raises what the template raises."""
RenderRecord = Callable[[Sequence[Message], Mapping[str, Any], bool], str]
"""(messages, tools and variables by name, add_generation_prompt) -> text; raises what the template raises."""

REFUSALS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError)
"""What a template raises on a record that it was not written for. Out of memory and Ctrl-C are not among them."""

SECONDS = 60
"""How long one rendering may take; a megabyte of messages takes less than a second."""

_WAY_ON = "mend it, or give prompt.template=alpaca"

# transformers passes plain data to a template, no functions. So the template is given a macro `strftime_now` that looks
# its answer up in `curate_dates`. If the answer is missing, it raises the format; `renderer` then adds the answer and
# renders again.
_ASK = "\ufdd2"
_CLOCK = (
    "{% macro strftime_now(format) %}"
    "{{ curate_dates[format] if format in curate_dates else raise_exception(curate_ask ~ format) }}"
    "{% endmacro %}\n"
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")
_MOMENTS = datetime(2001, 2, 3, 4, 5, 6), datetime(2022, 11, 15, 17, 48, 59)  # they differ in every part, weekday too


def renderer(tokenizer: PreTrainedTokenizerBase, now: datetime) -> RenderRecord:
    """Return the tokenizer's chat template as a function (messages, beside, add_generation_prompt) -> text.

    `beside` is what the template is given beside the messages, by name: `tools`, `documents`, and variables of its own
    (`enable_thinking`), as keywords of `apply_chat_template`.

    In the template `strftime_now` formats `now`. A date that the template reads from a variable (Llama 3.1's
    `date_string`) keeps the template's own default, as it does in `apply_chat_template`.

    The returned function raises what the template raises, ValueError where two renderings would differ, and CurateError
    if the template is no valid Jinja, does not end, or takes all memory.
    """
    dates: dict[str, str] = {}

    def render(messages: Sequence[Message], beside: Mapping[str, Any], add_generation_prompt: bool) -> str:
        source = tokenizer.get_chat_template(tools=beside.get("tools"))
        clock = _CLOCK if reads_clock(source) else ""
        answers = {"curate_dates": dates, "curate_ask": _ASK} if clock else {}
        while True:
            try:
                with _refusing_draws(source), deadline(SECONDS):
                    text = tokenizer.apply_chat_template(
                        list(messages),
                        chat_template=clock + source,
                        tokenize=False,
                        add_generation_prompt=add_generation_prompt,
                        **{**beside, **answers},
                    )
            except TemplateSyntaxError as error:
                raise CurateError(f"{_whose(tokenizer)} is no valid Jinja: {error}; {_WAY_ON}") from None
            except OverdueError:
                raise CurateError(f"{_whose(tokenizer)} does not end within {SECONDS} seconds; {_WAY_ON}") from None
            except MemoryError:
                raise CurateError(f"{_whose(tokenizer)} takes more memory than there is; {_WAY_ON}") from None
            except TemplateError as error:
                format = str(error).removeprefix(_ASK)
                if not str(error).startswith(_ASK) or format in dates:
                    raise
                dates[format] = now.strftime(format)
            else:
                _refuse_addresses(str(text), messages, beside)
                return str(text)

    return render


def _whose(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the chat template of {tokenizer.name_or_path or 'the tokenizer'}"


@contextmanager
def _refusing_draws(source: str) -> Iterator[None]:
    """Raise ValueError if the template draws at random: Jinja has a filter `random`, and `lipsum` makes up texts."""
    if "random" not in source and "lipsum" not in source:
        yield
        return
    before = random.getstate()  # Jinja draws from Python's own generator
    yield
    if random.getstate() != before:
        random.setstate(before)
        raise ValueError("it draws at random, so the same record is another text at every rendering")


def _refuse_addresses(text: str, messages: Sequence[Message], beside: Mapping[str, Any]) -> None:
    """Raise ValueError if Python printed an object of its own, as `{{ x.items }}` does: that is a method of x."""
    if " at 0x" in text and (found := _ADDRESS.search(text)) and found[0] not in f"{messages}{beside}":
        raise ValueError(
            "it writes an object's address in memory, another in every process; {{ x.items }} for {{ x['items'] }}?"
        )


def reads_clock(template: str) -> bool:
    """Return whether a chat template may read the date or time."""
    return "strftime_now" in template


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the chat template writes the date or time: whether two moments give different texts."""
    if not tokenizer.chat_template:
        return False
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    system = [{"role": "system", "content": "s"}]
    conversations = [(turns, None), (system + turns, None), (turns, tools), (system + turns, tools)]
    return any(
        _text(tokenizer, _MOMENTS[0], *conversation) != _text(tokenizer, _MOMENTS[1], *conversation)
        for conversation in conversations
    )


def _text(tokenizer: PreTrainedTokenizerBase, now: datetime, messages: Sequence[Message], tools: Any) -> str | None:
    """Render a conversation at a moment; None where the template refuses it."""
    try:
        return renderer(tokenizer, now)(messages, {"tools": tools}, False)
    except REFUSALS:
        return None


def refusal(error: Exception) -> str:
    """Return in one short line why a template refused, e.g. "ZeroDivisionError: division by zero"."""
    kind = "" if isinstance(error, TemplateError) and str(error) else f"{type(error).__name__}: "
    words = " ".join(f"{kind}{error}".split())
    return words if len(words) <= 160 else f"{words[:159]}…"
