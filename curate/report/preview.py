"""Shows records as the model will see them: which of their tokens are scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from curate.report.pages import page
from curate.report.visible import visible

Kind = Literal["scored", "end", "special", "context"]


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """One token.

    text     the characters of the record that the token covers
    scored   whether it is a response token, which is scored and trained on
    end      whether it is the end token of a response, which is trained on but not scored
    special  whether it is a control token of the tokenizer
    """

    id: int
    text: str
    scored: bool
    end: bool
    special: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """One record as tokens; it has no tokens if its status is not "scored".

    status        "scored", or why the record will not be scored (curate.types.STATUSES)
    template      the prompt template in use
    reason        a sentence that explains the status; "" if none is needed
    truncated     whether the end of the response was cut to fit prompt.max_length
    control_hits  number of control tokens in the record's own text, which are read as ordinary text
    adds          the end token that training adds because the template writes none; "" if it adds none
    """

    row: int
    id: str
    status: str
    template: str
    tokens: tuple[PreviewToken, ...]
    reason: str = ""
    truncated: bool = False
    control_hits: int = 0
    adds: str = ""


def preview_objects(previews: Sequence[Preview]) -> list[dict[str, Any]]:
    """Return the previews as plain JSON values: row, id, status, template, tokens (id, text, scored, end)."""
    return [
        {
            "row": preview.row,
            "id": preview.id,
            "status": preview.status,
            "template": preview.template,
            "tokens": [{"id": t.id, "text": t.text, "scored": t.scored, "end": t.end} for t in preview.tokens],
        }
        for preview in previews
    ]


def preview_text(previews: Sequence[Preview], *, color: bool) -> str:
    r"""Return the previews for a terminal, below a legend.

    With colour, scored text is green and underlined, special tokens are magenta, end tokens are yellow, and the rest is
    dim. Without colour, scored text is in [[ ]], special tokens are in < > and end tokens in { }. If a record itself
    contains such brackets, more of them are used, so that no text can look like a scored one. Control characters are
    made visible, so that no text of a record can control the terminal.

    >>> token = PreviewToken(7, "Yes\x1b", scored=True, end=False)
    >>> print(preview_text([Preview(0, "ab12", "scored", "plain", (token,))], color=False).splitlines()[-1])
    [[Yes[U+001B]]]
    """
    depths = _LEAST if color else _depths(previews)
    blocks = [_legend(depths, color)]
    for preview in previews:
        head = _style(f"record {preview.row}", "strong", color)
        blocks.append(f"{head}  {'  '.join(_facts(preview))}\n{_body(preview, depths, color)}".rstrip("\n"))
    return "\n\n".join(blocks)


def preview_html(previews: Sequence[Preview]) -> str:
    """Return the previews as a self-contained HTML page without scripts."""
    shown = [
        {
            "row": preview.row,
            "facts": [visible(fact) for fact in _facts(preview)],
            "runs": [(kind, visible(text)) for kind, text in _runs(preview.tokens)],
        }
        for preview in previews
    ]
    return page("preview.html.jinja", previews=shown)


# ANSI codes: 1 bold, 2 dim, 4 underlined, 32 green, 33 yellow, 35 magenta.
_CODES = {"strong": "1", "scored": "32;4", "end": "33;1", "special": "35", "context": "2"}
_BRACKETS: dict[Kind, tuple[str, str]] = {"scored": ("[", "]"), "special": ("<", ">"), "end": ("{", "}")}
# Brackets on either side if no record contains any.
_LEAST: dict[Kind, int] = {"scored": 2, "special": 1, "end": 1}


def _facts(preview: Preview) -> Iterator[str]:
    """Yield what is said of a record above its tokens."""
    scored = sum(token.scored for token in preview.tokens)
    yield visible(preview.id[:12])
    yield preview.status if preview.status == "scored" else f"not scored: {preview.status}"
    yield f"template {preview.template}"
    if preview.tokens:
        yield f"{scored:,} of {len(preview.tokens):,} tokens scored"
    if preview.truncated and preview.tokens:
        yield "truncated: the end of the response was cut to fit prompt.max_length"
    if preview.control_hits:
        many = "control token stands" if preview.control_hits == 1 else "control tokens stand"
        yield f"{preview.control_hits:,} {many} in its own text, read as ordinary text"
    if preview.adds:
        yield f"training adds {visible(preview.adds)} at the end"
    if preview.reason:
        yield visible(preview.reason)


def _runs(tokens: Sequence[PreviewToken]) -> Iterator[tuple[Kind, str]]:
    """Yield kind and text of every run of tokens of one kind; special tokens and end tokens are runs of their own."""
    for (_, kind), run in groupby(enumerate(tokens), lambda item: _place(*item)):
        yield kind, "".join(token.text for _, token in run)


def _place(index: int, token: PreviewToken) -> tuple[int, Kind]:
    kind: Kind = "end" if token.end else "scored" if token.scored else "special" if token.special else "context"
    return (index if kind in ("end", "special") else -1), kind


def _depths(previews: Sequence[Preview]) -> dict[Kind, int]:
    """Return for each kind a number of brackets that is larger than any run of them in a record."""
    # A space in the place of special and end tokens, whose own brackets do not count.
    ordinary = "".join(t.text if not (t.special or t.end) else " " for preview in previews for t in preview.tokens)
    return {
        kind: max(
            least, 1 + max(map(len, re.findall(f"[{re.escape(''.join(_BRACKETS[kind]))}]+", ordinary)), default=0)
        )
        for kind, least in _LEAST.items()
    }


def _with_marks(kind: Kind, text: str, depths: Mapping[Kind, int]) -> str:
    """Return a text in brackets; brackets that it begins and ends with itself, such as those of <s>, are counted in."""
    if kind == "context":
        return text
    left, right = _BRACKETS[kind]
    # Brackets that scored text begins with are text of the record; those of a special token belong to its name.
    own = 0 if kind == "scored" else len(text) - len(text.lstrip(left))
    own = min(own, len(text) - len(text.rstrip(right)))
    missing = max(depths[kind] - own, 0)
    return f"{left * missing}{text}{right * missing}"


def _body(preview: Preview, depths: Mapping[Kind, int], color: bool) -> str:
    parts = []
    for kind, text in _runs(preview.tokens):
        shown = visible(text if color and kind == "scored" else _with_marks(kind, text, depths))
        # Line by line: some terminals colour the rest of the line if a style does not end before it.
        parts.append("\n".join(_style(line, kind, color) if line else line for line in shown.split("\n")))
    return "".join(parts)


def _style(text: str, kind: str, color: bool) -> str:
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if color else text


def _legend(depths: Mapping[Kind, int], color: bool) -> str:
    scored = "scored" if color else _with_marks("scored", "scored", depths)
    special = _with_marks("special", "special", depths)
    end = _with_marks("end", "end token: trained on, not scored", depths)
    names = (("scored", scored), ("context", "not scored"), ("special", special), ("end", end))
    return "  ".join(_style(text, kind, color) for kind, text in names)
