"""Fills the templates. A page may load nothing: its rules are in the page, and its scripts are named by their hash."""

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
        template: a file of the folder templates.
        scripts: JavaScript by name; the template puts it in its place as `scripts.name`.
        **values: what the template shows. Text is escaped.
    """
    scripts = scripts or {}
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts.values()]
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    # Scripts set styles too, so these cannot be hashed; under default-src no style can fetch anything.
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
    """Return a file of the folder templates as it stands."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def script_json(value: Any) -> Markup:
    r"""Return JSON that may stand in a `<script type="application/json">`: no text in it can end the element.

    >>> print(script_json({"a": "</script>"}))
    {"a":"\u003c/script>"}
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - `<` cannot occur


def packed_json(value: Any) -> str:
    """Return JSON, deflated (zlib) and in base64, as DecompressionStream("deflate") reads it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("curate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "visible": visible, "duration": duration, "compact": compact}
    environment.filters["is_number"] = is_number
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for people: whole ones with commas, others with so many digits after the point.

    >>> number(12345), number(0.5), number(None)
    ('12,345', '0.500', '–')
    """
    if value is None or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def is_number(value: Any) -> bool:
    """Return whether a cell of a table is a number, or a text that begins like one.

    >>> is_number(3), is_number("+0.12 +"), is_number("top"), is_number(None), is_number("3 poets")
    (True, True, False, True, True)
    """
    return not isinstance(value, str) or not value or value[0] in "+-0123456789"


def duration(seconds: float) -> str:
    """Return a time for people: seconds, or the two largest units.

    >>> duration(9.4), duration(149), duration(7325)
    ('9 s', '2 min 29 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def compact(value: float) -> str:
    """Return a number of any size for people: small ones with four digits after the point, large ones with fewer.

    >>> compact(1.23456), compact(9229.0), compact(1234.5), compact(3), compact(float("nan"))
    ('1.2346', '9,229', '1,234.5', '3', '–')
    """
    if not math.isfinite(value):
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"
