"""YAML as recipes are written in it: safe, no key twice, keys are words; what is written is read back equal.

Numbers are decimal and dates are text: PyYAML by itself reads 010 as 8, 1:30 as 90, and 2026-05-01 as a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from curate.types import CurateError


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses keys that stand twice or are not words, and references.

    A few lines of references to references stand for a billion values; no recipe needs one.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse `*name` before it is followed."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]  # of PyYAML
            line = event.start_mark.line + 1
            raise CurateError(f"recipe line {line}: a reference (*{event.anchor}): write the value itself")
        return super().compose_node(parent, index)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise CurateError(f"recipe line {key_node.start_mark.line + 1}: keys are words, got {key!r}")
        if key in seen:
            raise CurateError(f"recipe line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float:
    text = node.value.lower()
    return int(text) if text.lstrip("+-").isdecimal() else float(text.replace(".inf", "inf").replace(".nan", "nan"))


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_REPLACED = {_INT, _FLOAT, "tag:yaml.org,2002:timestamp"}
_StrictLoader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED])
}
_StrictLoader.add_implicit_resolver(_INT, re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"),
    list("-+0123456789."),
)
for _tag in (_INT, _FLOAT):
    _StrictLoader.add_constructor(_tag, _number)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Dumper(yaml.SafeDumper):
    """Writes text with control characters and odd line ends quoted and escaped, else PyYAML loses some of them."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def parse(text: str, what: str) -> Any:
    """The value that a YAML text stands for; `what` names the text in messages.

    Raises:
        CurateError: not YAML, objects of a programming language, a key that stands twice or is not a word.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # PyYAML says all of these of what looks like a date or a number and is none.
        raise CurateError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from None


def scalar(text: str) -> Any:
    """A word without quotes as YAML means it: a number, a boolean, null, or text.

    >>> scalar("010"), scalar("yes"), scalar("2026-05-01")
    (10, True, '2026-05-01')
    """
    loader = _StrictLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # of PyYAML
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, yaml.YAMLError):
        return text


def dump(tree: Any) -> str:
    """A value as YAML that `parse` reads back equal."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
