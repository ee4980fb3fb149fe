"""What a record gives a chat template beside messages and tools: documents, and variables of the template's own.

They are called as `apply_chat_template` of transformers calls them (`documents`, `enable_thinking`), and as TRL does: a
field `chat_template_kwargs` holds any variables by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.read.conversations import as_list
from curate.read.messages import is_null, parsed, without_nulls

# Keywords of `apply_chat_template` itself: from a record they would replace the template, or what becomes of its text.
_NOT_VARIABLES = {
    *("conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs"),
}


def variables_of(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that the fields `formats.BESIDE` of a record stand for, by name, in one spelling.

    Each may also be the JSON text of its value, as in CSV. Nulls are left out. `documents` that are no list of objects,
    and `enable_thinking` that is not true or false, are other people's fields of the same name: they are left out too.

    >>> variables_of({"documents": [{"text": "a", "title": None}], "chat_template_kwargs": {"enable_thinking": False}})
    {'documents': [{'text': 'a'}], 'enable_thinking': False}

    Raises:
        ValueError: "chat_template_kwargs: what" where it is no object, or would change more than variables.
    """
    variables: dict[str, Any] = {}
    documents = as_list(own.get("documents"))
    if isinstance(documents, list) and documents and all(isinstance(document, Mapping) for document in documents):
        variables["documents"] = without_nulls(documents)
    if isinstance(thinking := parsed(own.get("enable_thinking")), bool):
        variables["enable_thinking"] = thinking
    return variables | _keywords(own.get("chat_template_kwargs"))


def _keywords(value: Any) -> dict[str, Any]:
    value = parsed(value)
    if is_null(value) or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("chat_template_kwargs: expected an object, the variables of a chat template by name")
    variables: dict[str, Any] = without_nulls(value)
    for name in _NOT_VARIABLES & variables.keys():
        if variables.pop(name) is not False:  # false is what holds anyway
            raise ValueError(f"chat_template_kwargs: expected variables of a chat template, got {name}; leave it out")
    return variables
