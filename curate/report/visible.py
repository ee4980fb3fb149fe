"""Makes visible what a terminal or a page would obey rather than show."""

from __future__ import annotations

import re

# Controls but for newline and tab; marks that reorder or hide text (a right-to-left override can make code lie);
# halves of surrogate pairs, which no encoding can hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return `text` with every control and reordering character shown as a sign; newlines and tabs stay.

    C0 controls become their Unicode pictures, others their number in brackets. The zero-width joiner and non-joiner
    stay: emoji and several scripts are written with them.

    >>> visible("a\x00b\x1b[31m") == "a\u2400b\u241b[31m", visible("\u202eabc")
    (True, '[U+202E]abc')
    """
    return _HIDDEN.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"
