"""Fills the templates of pages. A page is one file that loads nothing: its content security policy forbids it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from curate.report.visible import visible


def page(template: str, *, scripts: Mapping[str, str] | None = None, **values: Any) -> str:
    """Return a self-contained HTML page.

    Args:
        template: name of a file in the folder templates.
        scripts: JavaScript by name, which the template inserts as `scripts.name`; no other script can run.
        **values: values that the template shows; text is escaped.
    """
    scripts = scripts or {}
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts.values()]
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    # Vega sets styles while it draws, so styles cannot be named by hash. None of them can load a file: see default-src.
    policy = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(source("page.css")),  # noqa: S704 - our own file
            scripts={name: Markup(text) for name, text in scripts.items()},  # noqa: S704 - our own and the library's
            **values,
        )
    )


def source(name: str) -> str:
    """Return the text of a file in the folder templates, not filled in."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def script_json(value: Any) -> Markup:
    r"""Return JSON for a `<script type="application/json">` element; no text in it can end the element.

    >>> print(script_json({"a": "</script>"}))
    {"a":"\u003c/script>"}
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - `<` cannot occur


def packed_json(value: Any) -> str:
    """Return JSON, compressed by zlib and in base64; a browser reads it with DecompressionStream("deflate")."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _environment() -> jinja2.Environment:
    """Return a jinja2 environment for the templates of pages, with the filters that they use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("curate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,  # a misspelt name in a template is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "visible": visible, "duration": duration, "compact": compact}
    environment.filters |= {"is_number": is_number, "signed": signed, "rough": rough}
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for people: integers with commas, others with `digits` digits after the point.

    >>> number(12345), number(0.5), number(None)
    ('12,345', '0.500', '–')
    """
    if value is None or value != value:  # NaN
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def signed(value: int) -> str:
    """Return a difference of counts with its sign.

    >>> signed(1200), signed(-2), signed(0)
    ('+1,200', '-2', '0')
    """
    return f"{value:+,}" if value else "0"


def rough(value: float) -> str:
    """Return an expected count: a small one is hardly ever whole.

    >>> rough(0.4), rough(36.64)
    ('0.4', '37')
    """
    return number(value, 0 if value >= 10 else 1)


def is_number(value: Any) -> bool:
    """Return whether a cell of a table is aligned as a number: any value but text, or text that begins like a number.

    >>> is_number(3), is_number("+0.12 +"), is_number("top"), is_number(None), is_number("3 poets")
    (True, True, False, True, True)
    """
    return not isinstance(value, str) or not value or value[0] in "+-0123456789"


def duration(seconds: float) -> str:
    """Return a duration for people: in seconds, or in the two largest units.

    >>> duration(9.4), duration(149), duration(7325)
    ('9 s', '2 min 29 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def compact(value: float) -> str:
    """Return a number for people: four digits after the point below 100, one above, none for whole numbers.

    >>> compact(1.23456), compact(9229.0), compact(1234.5), compact(3), compact(float("nan"))
    ('1.2346', '9,229', '1,234.5', '3', '–')
    """
    if not math.isfinite(value):
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"
