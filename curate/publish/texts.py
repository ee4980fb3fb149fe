"""Reads the templates of published files, in templates/."""

from __future__ import annotations

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Return a jinja2 environment for these templates, in which a missing value is an error."""
    made = Environment(  # noqa: S701 - YAML and Markdown, no HTML; every value goes through `yaml`
        loader=PackageLoader("curate.publish", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Every value from a person goes through this filter, so that a name such as `no` or `a: b` stays a text.
    made.filters["yaml"] = as_yaml
    made.filters["python"] = repr
    return made


def as_yaml(value: object) -> str:
    """Return a value as YAML on one line; a whole float becomes an integer, since some programs accept nothing else.

    >>> as_yaml(1e-05), as_yaml(32.0), as_yaml("no"), as_yaml(("q_proj", "v_proj"))
    ('1.0e-05', '32', "'no'", '[q_proj, v_proj]')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n").strip()
