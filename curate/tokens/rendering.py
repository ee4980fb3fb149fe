"""What a tokenizer's chat template writes, at a date and time that stand still.

A template is a program that comes with the model. It may read the clock (`strftime_now`, as Llama 3 does), and then the
same record is other text tomorrow. So every rendering of a run is made at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError

from curate.types import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]
"""(messages, add_generation_prompt) -> text; raises what the template raises."""
RenderWithTools = Callable[[Sequence[Message], Sequence[Mapping[str, Any]] | None, bool], str]

REFUSALS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError)
"""What a template raises on a record that it was not written for. A lack of memory and Ctrl-C are not among them."""

# Variables of a template are plain data, never functions. So the template is given a `strftime_now` that looks the
# answer up, and asks for an answer that is not there yet by raising its format.
_ASK = "\ufdd2"
_CLOCK = (
    "{% macro strftime_now(format) %}"
    "{{ curate_dates[format] if format in curate_dates else raise_exception(curate_ask ~ format) }}"
    "{% endmacro %}\n"
)
_MOMENTS = datetime(2001, 2, 3, 4, 5, 6), datetime(2022, 11, 15, 17, 48, 59)  # differ in everything, weekday too


def renderer(tokenizer: PreTrainedTokenizerBase, now: datetime) -> RenderWithTools:
    """Give the tokenizer's chat template as a function (messages, tools, add_generation_prompt) -> text.

    `strftime_now` tells `now`. A date that the template reads from a variable (Llama 3.1's `date_string`) keeps the
    template's own default, as it does in `apply_chat_template`.

    The function raises what the template raises.

    Raises:
        CurateError: (the function) the template is no valid Jinja.
    """
    dates: dict[str, str] = {}

    def render(
        messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, add_generation_prompt: bool
    ) -> str:
        given = list(tools) if tools else None
        source = tokenizer.get_chat_template(tools=given)
        clock = _CLOCK if "strftime_now" in source else ""
        while True:
            try:
                text = tokenizer.apply_chat_template(
                    list(messages),
                    tools=given,
                    chat_template=clock + source,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **({"curate_dates": dates, "curate_ask": _ASK} if clock else {}),
                )
            except TemplateSyntaxError as error:
                raise CurateError(
                    f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} is no valid Jinja: {error}; "
                    "mend it, or give prompt.template=alpaca"
                ) from None
            except TemplateError as error:
                format = str(error).removeprefix(_ASK)
                if not str(error).startswith(_ASK) or format in dates:
                    raise
                dates[format] = now.strftime(format)
            else:
                return str(text)

    return render


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template writes the date or time: whether two moments give two texts."""
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
    """The rendering at a moment; None where the template refuses such a conversation."""
    try:
        return renderer(tokenizer, now)(messages, tools, False)
    except REFUSALS:
        return None


def refusal(error: Exception) -> str:
    """Say in one short line why a template refused, e.g. "ZeroDivisionError: division by zero"."""
    kind = "" if isinstance(error, TemplateError) and str(error) else f"{type(error).__name__}: "
    words = " ".join(f"{kind}{error}".split())
    return words if len(words) <= 160 else f"{words[:159]}…"
