"""Makes characters visible that a terminal or a browser would obey instead of showing them."""

from __future__ import annotations

import re

# Control characters except newline and tab; marks that reorder text (a right-to-left override makes code look like
# other code); invisible characters, which a model reads (tag characters can spell out instructions to it); halves of
# surrogate pairs, which no encoding can write. Zero-width joiner and non-joiner and the variation selectors are kept:
# emoji and several scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Return `text` with control, reordering and invisible characters written as [U+XXXX]; newlines and tabs stay.

    >>> visible("a\x00b\x1b[31m"), visible("\u202eabc")
    ('a[U+0000]b[U+001B][31m', '[U+202E]abc')
    """
    return _HIDDEN.sub(lambda match: f"[U+{ord(match.group()):04X}]", text)
