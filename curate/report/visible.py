"""Makes visible what a terminal or a page would obey rather than show."""

from __future__ import annotations

import re

# Controls but for newline and tab; marks that reorder or hide text (a right-to-left override can make code lie);
# characters that nobody sees and a model reads (tag characters can spell out a whole order to it); halves of surrogate
# pairs, which no encoding can hold. The zero-width joiner and non-joiner and the variation selectors are left alone:
# emoji and several scripts are written with them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Return `text` with the number of every control and reordering character in its place; newlines and tabs stay.

    >>> visible("a\x00b\x1b[31m"), visible("\u202eabc")
    ('a[U+0000]b[U+001B][31m', '[U+202E]abc')
    """
    return _HIDDEN.sub(lambda match: f"[U+{ord(match.group()):04X}]", text)
