"""Reads JSON strictly: one record from its bytes, and the lines of a JSONL file."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

BLANKS = b" \t\r\n"
CHUNK = 1 << 20  # bytes read at once
MESSAGE_KEYS = (("role", "content"), ("from", "value"))  # who speaks and what is said: of OpenAI, of ShareGPT
MAX_DEPTH = 100  # of nested brackets; far below Python's own limit, which differs between versions

_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadRecordError(ValueError):
    """A record that cannot be used, and why. `line` is the line of the fault within the record, from 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def excerpt(text: str | bytes) -> str:
    r"""Return the first 40 characters of a text for a message: quoted, with everything unprintable escaped.

    Data is printed in no other form: an escape sequence in it could rewrite the person's terminal.

    >>> excerpt("\x1b]0;title")
    "'\\x1b]0;title'"
    """
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return repr(text[:40] + ("..." if len(text) > 40 else ""))


def printable(text: str) -> str:
    r"""Return a text with everything unprintable escaped.

    >>> printable("a\tb\n")
    'a\\tb\\n'
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def one_line(error: Exception) -> str:
    """Return the message of another library's error on one line, cut to 300 characters and printable."""
    return printable(" ".join(str(error).split())[:300])


def parse_record(raw: bytes) -> dict[str, Any]:
    """Return one record: a JSON object as it is, a list of messages as the object {"messages": list}.

    Raises:
        BadRecordError: any other JSON value, or text that `parse` refuses.

    >>> parse_record(b'[{"role": "user", "content": "Hi"}]')
    {'messages': [{'role': 'user', 'content': 'Hi'}]}
    """
    value = parse(raw)
    if isinstance(value, list) and value and is_message(value[0]) and all(isinstance(part, dict) for part in value):
        return {"messages": value}
    if not isinstance(value, dict):
        raise BadRecordError(f"expected an object {{...}}, got {excerpt(raw)}")
    return value


def is_message(value: Any) -> bool:
    """Say whether a value has the keys of a message: `role` and `content`, or `from` and `value`."""
    return isinstance(value, dict) and any(role in value and text in value for role, text in MESSAGE_KEYS)


def parse(raw: bytes) -> Any:
    """Return one JSON value, read strictly by RFC 8259.

    Python's json module takes more than JSON: NaN, two equal keys (the last one wins), 1e999 (as infinity).

    Raises:
        BadRecordError: invalid UTF-8 or JSON, two equal keys in an object, a number that is not finite or has too many
            digits, half a surrogate pair, or brackets nested deeper than MAX_DEPTH.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start)
        raise BadRecordError(f"invalid UTF-8 (byte {raw[error.start]:#04x})", line) from None
    if _is_deep(raw):
        raise BadRecordError(f"brackets nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise BadRecordError(f"broken JSON: {error.msg} near {excerpt(text[error.pos :])}", error.lineno - 1) from None
    except BadRecordError:
        raise
    except ValueError:  # Python limits the digits of an integer, since reading them takes quadratic time
        raise BadRecordError("an integer with too many digits") from None
    # Half a pair is no character: it cannot be written as UTF-8, and tokenizers raise a TypeError on it.
    if _SURROGATE.search(raw) and not _is_unicode(value):
        raise BadRecordError("half of a surrogate pair (\\ud800-\\udfff), which is no character")
    return value


def lines(file: BinaryIO, *, limit: int) -> Iterator[tuple[int, bytes | None]]:
    r"""Yield every line that is not blank: its number (from 1), and its bytes without the blanks around them.

    Only a line feed ends a line, so that U+2028 and others may stand in a text. A line of more than `limit` bytes is
    given as None.

    >>> import io
    >>> list(lines(io.BytesIO(b'{"a": 1}\n\n{"a": "a long text"}\n'), limit=10))
    [(1, b'{"a": 1}'), (3, None)]
    """
    for number in itertools.count(1):
        line = file.readline(limit + 2)  # two for the line end, which may be \r\n
        if not line:
            return
        cut = len(line) == limit + 2 and not line.endswith(b"\n")
        record = line.strip(BLANKS)
        if cut or record:
            yield number, None if cut or len(record) > limit else record
        while cut:  # pass the rest of the line, a chunk at a time
            line = file.readline(CHUNK)
            cut = bool(line) and not line.endswith(b"\n")


def _is_deep(raw: bytes) -> bool:
    """Say whether the brackets of a JSON text are nested deeper than MAX_DEPTH, before Python recurses into them."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _BRACKET.finditer(raw):
        mark = token.group()
        depth += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        if depth > MAX_DEPTH:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise BadRecordError(f"the key {excerpt(twice)} stands twice")
    return fields


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadRecordError(f"the number {digits[:40]} is too large")
    return number


def _constant(word: str) -> float:
    raise BadRecordError(f"{word} is not JSON")


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
