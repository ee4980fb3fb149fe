"""Describes a file of kept records for other programs: its format, keys and roles."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.config import Data
from curate.read.conversations import MESSAGE_LISTS
from curate.read.examples import input_format, to_example
from curate.read.files import Source, open_source, read_records
from curate.read.formats import key_of
from curate.types import Example, Format, Record

# The columns of LLaMA-Factory by its names, each with our names for them; the first that occurs is taken.
LLAMA_FACTORY: dict[Format, dict[str, tuple[str, ...]]] = {
    "alpaca": {
        "prompt": ("instruction",),
        "query": ("input",),
        "response": ("output", "response"),
        "system": ("system",),
        "history": ("history",),
    },
    "prompt_completion": {"prompt": ("prompt",), "response": ("completion", "response")},
    "messages": {"messages": MESSAGE_LISTS["messages"], "tools": ("tools",)},
    "sharegpt": {"messages": MESSAGE_LISTS["sharegpt"], "system": ("system",), "tools": ("tools",)},
}
# The keys that other programs expect without being told.
_USUAL: dict[Format, set[str]] = {
    "alpaca": {"instruction", "output"},
    "prompt_completion": {"prompt", "completion"},
    "messages": {"messages"},
    "sharegpt": {"conversations"},
}


@dataclass(frozen=True, slots=True)
class KeptRecords:
    """A file of kept records, as other programs see it.

    path    the file
    data    the settings that the input was read with
    format  format of the records
    keys    keys that occur in the records, by our name for them
    roles   of conversations: the words for roles that occur
    words   of conversations: the keys of a message that hold its role and its text
    usual   other programs can read the file: it has the usual keys only, and every message is a role and a text
    odd     only curate can read the file: a record is a list, messages are no list, or roles or numbers are mapped
    tools   a record defines or calls tools
    count   number of records
    beside  a record gives its chat template documents or variables
    """

    path: Path
    data: Data
    format: Format
    keys: Mapping[str, str]
    roles: frozenset[str]
    words: tuple[str, str]
    usual: bool
    odd: bool
    tools: bool
    count: int
    beside: bool = False

    @property
    def is_chat(self) -> bool:
        """Say whether the records are lists of messages."""
        return self.format in ("messages", "sharegpt")

    def examples(self) -> Iterator[Example]:
        """Yield the records as conversations, read again from the file."""
        return (example for _, example in _read(self.path, self.format, self.data))


def describe_kept(kept: Path, source: Source, data: Data) -> KeptRecords:
    """Return a description of the file that `write_kept` wrote, after reading it once.

    Args:
        kept: what `write_kept` returned.
        source: the input that the records came from.
        data: the settings the input was read with.
    """
    format = input_format(data, source)
    keys: dict[str, str] = {}
    roles: set[str] = set()
    words = ("from", "value") if format == "sharegpt" else ("role", "content")
    word, text = (data.columns.get(name, name) for name in words)
    plain, tools, beside, count = True, False, False, 0
    odd = bool(data.roles) or data.numbers != "refuse"
    for record, example in _read(kept, format, data):
        fields = record.fields
        assert fields is not None, "a bad record is never kept"
        keys |= _keys(fields, format, data)
        value = _messages(fields, keys, format)
        odd = odd or not isinstance(value, list) or (record.raw or b"").startswith(b"[")
        messages = value if isinstance(value, list) else []
        roles |= {message[word] for message in messages if isinstance(message.get(word), str)}
        plain = plain and all(message.keys() <= {"role", "content"} or words[0] == "from" for message in messages)
        # A text in parts, [{"type": "text", "text": ...}, ...], is understood by few programs.
        plain = plain and not any(isinstance(message.get(text), list) for message in messages)
        tools = tools or _uses_tools(example)
        beside = beside or bool(example.variables)
        count += 1
    renamed = not _USUAL[format] <= keys.keys() or any(name != key for name, key in (keys | data.columns).items())
    usual = plain and not odd and not renamed and not keys.keys() & {"system", "history", "tools"}
    return KeptRecords(kept, data, format, keys, frozenset(roles), (word, text), usual, odd, tools, count, beside)


def _read(kept: Path, format: Format, data: Data) -> Iterator[tuple[Record, Example]]:
    """Yield every record of a file of kept records, as it is and as a conversation."""
    # The kept file has commas, and all of its records were short enough for the limit of their input.
    own = data.model_copy(update={"path": str(kept), "limit": None, "max_record_bytes": sys.maxsize, "delimiter": None})
    for record in read_records(open_source(own), own):
        yield record, to_example(record, format, data)


def _keys(fields: Mapping[str, Any], format: Format, data: Data) -> dict[str, str]:
    names = (name for names in LLAMA_FACTORY[format].values() for name in names)
    return {name: key for name in names if (key := key_of(name, fields, data.columns)) is not None}


def _messages(fields: Mapping[str, Any], keys: Mapping[str, str], format: Format) -> Any:
    """Return the value under the key of the messages; an empty list if the format has no messages."""
    return next((fields.get(keys[name]) for name in MESSAGE_LISTS.get(format, ()) if name in keys), [])


def _uses_tools(example: Example) -> bool:
    return bool(example.tools) or any(turn.role == "tool" or turn.extra.get("tool_calls") for turn in example.turns)
