"""Which variables a chat template reads beside the messages, and what of a record does not reach it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from jinja2 import Environment, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from curate.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # a tag of transformers' own
_NEVER_OF_A_RECORD = {"messages", "add_generation_prompt", "raise_exception", "strftime_now"}


def variables_read(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return the names that the chat template looks up: tools, documents, enable_thinking, and what else it knows.

    Messages, special tokens and functions are not among them; nothing is, where the template is no valid Jinja.
    """
    template = tokenizer.chat_template or ""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)  # it only parses
    names: set[str] = set()
    for source in [template] if isinstance(template, str) else template.values():
        try:
            names |= find_undeclared_variables(environment.parse(_GENERATION.sub("", source)))
        except (TemplateSyntaxError, RecursionError):
            continue  # rendering a record says what is wrong
    return frozenset(names - _NEVER_OF_A_RECORD - environment.globals.keys() - tokenizer.special_tokens_map.keys())


def variable_notes(example: Example, reads: Collection[str]) -> list[str]:
    """Say which variables of a record the template does not read, and which of its fields it would read if given.

    Args:
        example: a record.
        reads: what the template reads (`variables_read`); nothing under alpaca and plain.

    >>> variable_notes(Example(0, "", (), variables={"documents": [{"text": "a"}], "enable_thinking": False}), ())
    ['the template does not read documents: the model does not see them']
    """
    notes = []
    for name, value in example.variables.items():
        if name not in reads and value:  # without a place for thoughts there are none: false says nothing more
            it = "them" if isinstance(value, list) else "it"
            notes.append(f"the template does not read {name}: the model does not see {it}")
    notes += [
        f"the chat template reads {name}, and the field {name} of the record is not given to it: "
        "put it into chat_template_kwargs, an object"
        for name in sorted(example.unread.intersection(reads))
    ]
    return notes
